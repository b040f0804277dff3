// The picture's frame: one <figure> whose <img>s are kept and only change their src, so that nothing
// flickers or jumps. The value is ui/live.py's; a new one comes with every preview.
const FULL = "The server takes no more drawings now. Try again in a moment.";
const BROKEN = "The server broke this drawing off. Try again in a moment.";
const UNKNOWN = "Your last drawing isn't here: it didn't reach the server, or is no longer kept. Press Draw to draw it again.";
const AWAY = "Connection lost; looking for the server …";
const SILENCE = 3000;  // milliseconds without news of a drawing after which the server is asked whether it is there
const LATE = "The finished picture hasn't arrived yet; what you see is its preview. It is asked for again by itself.";
const GONE = "The server has deleted this picture's file; what you see is its preview. Drawing it again with the same seed gives the same picture.";
const find = (selector) => element.querySelector(selector);
const page = (window.stepwise ??= {});
let shown = {}, announced = null, frame = 0, stopping = false, away = false, broken = false, heard = 0;

const busy = (on) => {  // Draw and Stop change places; the keyboard's focus stays on the one that is there
  const [draw, stop] = [document.querySelector("#draw"), document.querySelector("#stop")];
  const focused = [draw, stop].includes(document.activeElement);
  document.body.classList.toggle("busy", on);
  if (focused) (on ? stop : draw).focus();
};

const lose = (connection) => {  // said in the frame's line, not in Gradio's message that lies over Stop
  if (connection === away) return;
  away = connection;
  document.body.classList.toggle("away", away);
  find(".line").textContent = away ? AWAY : shown.state === "running" ? shown.line : "";
  if (away) announce(AWAY);
};

const cells = (count) => {
  const grid = find(".grid");
  while (grid.children.length > count) grid.lastElementChild.remove();
  while (grid.children.length < count) grid.append(document.createElement("img"));
  grid.dataset.count = count;
  return [...grid.children];
};

const show = (img, src, alt, preview) => {
  img.alt = alt;
  if (!src) { img.removeAttribute("src"); img.hidden = true; img.dataset.src = ""; return; }
  const put = (url) => { if (img.dataset.src === src) { img.src = url; img.hidden = false; } };
  const missing = () => page.pictures.late(src) || page.pictures.gone(src);
  const standIn = () => { if (img.preview && missing()) put(img.preview); };
  const same = img.dataset.src === src;
  img.preview = preview ?? (same ? img.preview : null);  // it comes with the drawing's end, which its file can precede
  if (same) return standIn();
  img.dataset.src = src;
  if (src.startsWith("data:")) return put(src);
  if (page.pictures.gone(src)) return standIn();
  const mine = img.wanted = {};  // a file is swapped in once it is decoded; until then the preview stays
  const wanted = () => img.isConnected && img.wanted === mine && img.dataset.src === src;
  const news = () => {
    if (!wanted()) return;
    standIn();
    downloads(shown);
    notes(shown);
  };
  page.pictures.fetch(src, wanted, news).then((here) => {
    if (here && wanted()) { put(src); notes(shown); }
  });
};

const downloads = (value) => {
  const urls = value.state === "running" ? [] : files(value);
  find(".downloads").replaceChildren(...urls.map((url, index) => {
    const link = document.createElement("a");
    link.href = url; link.download = url.split("/").pop();
    link.textContent = urls.length > 1 ? `Download ${index + 1}` : "Download";
    return link;
  }).filter((_, index) => !page.pictures.gone(urls[index])));
};

const files = (value) => (value.pictures ?? []).slice(0, value.finished ?? 0);

const notes = (value) => {
  const { warnings, error } = value, urls = files(value);
  const more = [urls.some(page.pictures.late) && LATE, urls.some(page.pictures.gone) && GONE];
  find(".notes").replaceChildren(...[...(warnings ?? []), ...more, error].filter(Boolean).map((words) => {
    const note = document.createElement("p");
    note.className = words === error ? "error" : "warning";
    note.append(...words.split(/(https:\/\/\S*[^\s.,;:!?)])/).map((part, index) => index % 2 ? anchor(part) : part));
    return note;
  }));
};

const anchor = (url) => {
  const link = document.createElement("a");
  link.href = url; link.target = "_blank"; link.rel = "noopener";
  link.textContent = url.replace("https://", "");
  return link;
};

const announce = (words) => {  // once a phase, not at every step
  if (words && words !== announced) find(".announce").textContent = words;
  announced = words ?? null;
};

const paint = (value) => {
  const running = value.state === "running";
  shown = value;
  element.dataset.state = value.state ?? "empty";
  element.dataset.job = value.job ?? "";
  const waiting = running && !value.pictures?.length;  // until the first preview the last picture stays, dimmed
  element.dataset.waiting = waiting;
  if (value.pictures && !waiting) {
    const alt = running ? `Preview of: ${value.prompt}` : value.prompt;
    cells(value.count).forEach((img, index) => show(img, value.pictures[index], alt, value.item?.previews[index]));
    find(".empty").hidden = value.pictures.length > 0;
  }
  const bar = find("[role=progressbar]");
  bar.hidden = !running;
  const unknown = value.progress === null;  // then it has no value, and moves by itself
  bar.toggleAttribute("data-unknown", unknown);
  if (unknown) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", Math.round(100 * (value.progress ?? 0)));
  bar.firstElementChild.style.transform = unknown ? "" : `scaleX(${value.progress ?? 0})`;
  find(".line").textContent = running && away ? AWAY : running && stopping ? "Stopping…" : value.line ?? "";
  downloads(value);
  notes(value);
  if (value.error) find(".notes").scrollIntoView({ block: "nearest" });
  announce(value.announce);
};

// A drawing that was not accepted, or broke off: the words, and the picture as it was.
const refuse = (words, problems) => {
  const ended = shown.state === "running" ? { ...shown, state: "failed", line: "" } : shown;
  paint({ ...ended, warnings: [], error: words, announce: words });
  element.dataset.state = "failed";
  page.fields.tell(problems);
};

const news = () => {
  frame = 0;
  const value = props.value ?? {};
  if (value.state === "refused") refuse(value.error, value.problems);
  else if (value.state === "unknown") { paint({}); refuse(UNKNOWN); }
  else if (value.state) paint(value);
};

watch("value", () => {
  const value = props.value ?? {};
  if (!value.state) return;  // as the page was loaded
  const running = value.state === "running";
  busy(running);
  heard = Date.now();
  lose(false);
  if (!running) page.visit.drawing = null;
  if (running && stopping && value.job !== page.halted) halt(value.job);
  if (!running) stopping = false;
  if (value.item && value.job !== page.kept) {
    page.kept = value.job;
    window.dispatchEvent(new CustomEvent("stepwise:drawn", { detail: value.item }));
  }
  if (document.hidden) news();
  else frame ||= requestAnimationFrame(news);
});

const halt = (job) => { page.halted = job; trigger("halt", { job }); };

window.addEventListener("stepwise:show", ({ detail: item }) => {
  if (document.body.classList.contains("busy")) return;
  const { prompt, images } = item.settings;
  const pictures = [...item.pictures, ...item.previews.slice(item.pictures.length)];
  paint({ state: "finished", pictures, finished: item.pictures.length, count: images, prompt, line: item.line, item });
});

// Silence from a broken connection looks like a slow step: asking tells them apart. Where a stream broke off
// under a server that is still there, the drawing is followed anew; else the page is loaded again, by Gradio (6.31)
// or by `answers`, once there is a server.
setInterval(async () => {
  if (!document.body.classList.contains("busy") || Date.now() - heard < SILENCE) return;
  const asked = heard, there = await page.visit.answers();
  if (asked !== heard) return;
  if (there && broken) resume();
  else lose(!there);
}, SILENCE);

const resume = () => {
  broken = false; heard = Date.now();
  trigger("resume", { job: page.visit.drawing.job });
};

// A new drawing begins: its id.
page.begin = () => {
  const job = page.visit.id();
  page.visit.drawing = { job, stop: false };
  busy(true);
  stopping = false; announced = null; heard = Date.now();
  lose(false);
  find(".line").textContent = "Sending…";
  find(".downloads").replaceChildren();
  notes({});
  page.fields.tell();
  page.visit.joined = null;
  return job;
};

page.stop = () => {
  stopping = true;  // where the server hasn't answered yet: it is told as soon as it has
  find(".line").textContent = "Stopping…";
  const left = page.visit.drawing;
  if (left) page.visit.drawing = { ...left, stop: true };
  const value = props.value ?? {};
  if (value.state === "running") halt(value.job);
};

// (Where the connection itself is lost, Gradio says so and loads the page again once the server is back. A
// server that is told to end ends its streams in good order, with an error.)
page.lost = () => {
  if (shown.state === "running" && shown.job === page.visit.drawing?.job) {
    broken = true; heard = 0;
    return lose(true);
  }
  busy(false);
  stopping = false;
  const { status, words } = page.visit.joined ?? {};
  if (!status || status === 200) refuse(BROKEN);
  else refuse(status === 503 ? FULL : `The server didn't take this drawing (${[status, words].filter(Boolean).join(": ")}).`);
};

// A stop that didn't reach the server: it is sent again with the next news of the drawing.
page.unheard = () => { page.halted = null; };

// The drawing that had not ended when this tab was last left is followed again, with its Stop if that was pressed.
const left = page.visit.drawing;
if (left) {
  busy(true);
  stopping = left.stop;
  find(".line").textContent = stopping ? "Stopping…" : "Looking for your drawing …";
  resume();
}
