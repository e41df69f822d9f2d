"use strict";
// Sends pictures, or the frames of a clip or a webcam, to /v1/detect, and draws what it finds. Nothing else is asked.

const $ = (id) => document.getElementById(id);
const PACE_MS = 150; // between two frames of a clip or a webcam, at least
const SIDE = 1280; // pixels of the longer side of what is sent
let colours = {}, key = "", playing = 0;

function say(text) { $("status").textContent = text; }

async function ask(path, options = {}) {
  for (;;) {
    const answer = await fetch(path, { ...options, headers: key ? { "X-API-Key": key } : {} });
    if (answer.status !== 401) return answer;
    key = prompt("This server wants a key:") || "";
    if (!key) return answer;
  }
}

async function start() {
  const answer = await ask("v1/models");
  if (!answer.ok) { $("model").textContent = (await answer.json()).detail; return; }
  const model = (await answer.json()).models[0];
  colours = model.colours;
  $("model").textContent = `${model.name} (${model.architecture}), ${model.provider}, detector ${model.detector}`;
}

function fitted(width, height) {
  const zoom = Math.min(1, SIDE / Math.max(width, height));
  return [Math.max(1, Math.round(width * zoom)), Math.max(1, Math.round(height * zoom))];
}

async function judge(blob) {
  const form = new FormData();
  form.append("file", blob, "picture");
  const answer = await ask("v1/detect", { method: "POST", body: form });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.detail || `status ${answer.status}`);
  return told;
}

function draw(source, found, width, height) {
  const canvas = $("canvas"), pen = canvas.getContext("2d");
  canvas.width = width; canvas.height = height;
  pen.drawImage(source, 0, 0, width, height);
  const zoom = width / found.image.width, line = Math.max(14, width / 40);
  const boxes = found.faces.map((face) => face.box.map((side) => side * zoom));
  const colour = (face) => colours[face.label] || "#8C8C8C";
  pen.font = `600 ${line}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  pen.lineWidth = line / 6;
  found.faces.forEach((face, i) => {
    const [left, top, right, bottom] = boxes[i];
    pen.strokeStyle = colour(face);
    pen.strokeRect(left, top, right - left, bottom - top);
  });
  found.faces.forEach((face, i) => { // of several faces the list says more: their words would hide each other
    const [left, top, , bottom] = boxes[i], share = Math.round(100 * face.probabilities[face.label]);
    const text = found.faces.length > 1 ? `${i + 1}` : `${face.label} ${share} %`;
    const wide = pen.measureText(text).width + line, x = Math.max(0, Math.min(left, width - wide));
    const y = top >= 1.5 * line ? top - 1.5 * line : Math.min(bottom, height - 1.5 * line);
    pen.fillStyle = colour(face);
    pen.fillRect(x, y, wide, 1.5 * line);
    pen.fillStyle = "#ffffff"; pen.strokeStyle = "rgba(0, 0, 0, .65)"; pen.lineWidth = line / 8;
    pen.strokeText(text, x + line / 2, y + 0.75 * line);
    pen.fillText(text, x + line / 2, y + 0.75 * line);
  });
}

function list(found) {
  $("faces").replaceChildren(...found.faces.map((face, i) => {
    const item = document.createElement("li"), title = document.createElement("h2");
    item.style.setProperty("--colour", colours[face.label] || "#8C8C8C");
    title.textContent = `${i + 1}: ${face.label}`;
    item.append(title, ...Object.entries(face.probabilities).map(([emotion, share]) => {
      const row = document.createElement("div"), name = document.createElement("span");
      const bar = document.createElement("meter"), number = document.createElement("span");
      row.className = "row"; name.textContent = emotion; bar.value = share; bar.textContent = share;
      number.textContent = `${(100 * share).toFixed(1)} %`;
      row.append(name, bar, number);
      return row;
    }));
    return item;
  }));
  const faces = found.faces.length === 1 ? "1 face" : `${found.faces.length} faces`;
  say(`${faces}, ${found.timing_ms.total.toFixed(0)} ms`);
}

function show(what) { $("drop").hidden = what !== "drop"; $("view").hidden = what !== "view"; }

async function picture(file, run) {
  say("looking …");
  const found = await judge(file); // the file itself: the server turns it upright, as the browser does
  const image = await createImageBitmap(file, { imageOrientation: "from-image" });
  if (run !== playing) return; // another one was chosen meanwhile
  show("view");
  draw(image, found, ...fitted(image.width, image.height));
  list(found);
}

async function frames(run) {
  const video = $("video"), still = document.createElement("canvas");
  await video.play();
  show("view");
  while (run === playing) {
    const began = performance.now(), [width, height] = fitted(video.videoWidth, video.videoHeight);
    still.width = width; still.height = height;
    still.getContext("2d").drawImage(video, 0, 0, width, height);
    const blob = await new Promise((done) => still.toBlob(done, "image/jpeg", 0.9));
    const found = await judge(blob);
    if (run !== playing) return;
    draw(still, found, width, height);
    list(found);
    await new Promise((done) => setTimeout(done, Math.max(0, PACE_MS - (performance.now() - began))));
  }
}

function stop() {
  playing += 1;
  const video = $("video");
  video.pause();
  if (video.srcObject) video.srcObject.getTracks().forEach((track) => track.stop());
  if (video.src) URL.revokeObjectURL(video.src);
  video.srcObject = null; video.removeAttribute("src");
}

async function take(job) {
  stop();
  const run = playing;
  try { await job(run); } catch (error) {
    if (run !== playing) return; // what another job ended
    stop(); show("drop"); $("faces").replaceChildren(); say(error.message);
  }
}

function open(file) {
  if (!file) return;
  if (!file.type.startsWith("video/")) { take((run) => picture(file, run)); return; }
  take((run) => { $("video").src = URL.createObjectURL(file); return frames(run); });
}

$("file").addEventListener("change", (event) => { open(event.target.files[0]); event.target.value = ""; });
$("camera").addEventListener("click", () => take(async (run) => {
  if (!navigator.mediaDevices) throw new Error("browsers give a webcam to https:// and to localhost only");
  const camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  if (run !== playing) { camera.getTracks().forEach((track) => track.stop()); return; }
  $("video").srcObject = camera;
  return frames(run);
}));
$("again").addEventListener("click", () => { stop(); show("drop"); $("faces").replaceChildren(); say(""); });
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") open(event.dataTransfer.files[0]);
  });
}
start();
