"use strict";
const $ = id => document.getElementById(id);
// Wherever a web server mounts this, with a slash at the end or without.
const base = location.pathname.replace(/\/?$/, "/");
const pause = ms => new Promise(done => setTimeout(done, ms));
const figure = n => n.toLocaleString("en");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const MINUTE = 60000, PROBE = 200, RATE = 512 * 1024;

let page = "", run = "", lastMessage = 0;
let now = { active: 0, connections: 0, clients: {} };
// Points of time, and what was seen then.
const past = [], fetches = [], echoes = [], slowTimes = [];

function keep(list, ...values) {
  const at = performance.now();
  list.push([at, ...values]);
  while (list.length && list[0][0] < at - MINUTE - 1000) list.shift();
}

// What becomes of the requests that were asked for last: how many clients there are to be, open or failed, and whether they are.
let asking = null;
function say(text, bad) {
  asking = null;
  note(text, bad);
}

function note(text, bad) {
  $("said").className = bad ? "note bad" : "note";
  set("said", text);
}

function set(id, text) {
  const element = typeof id === "string" ? $(id) : id;
  if (element.textContent !== text) element.textContent = text;
}

function state(ok, text = ok ? "live" : "reconnecting") {
  $("state").className = ok ? "" : "lost";
  document.body.classList.toggle("lost", !ok);
  set("state", text);
}

async function post(what, body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  const answer = await fetch(base + what, { method: "POST", headers, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error((await answer.text()).trim().slice(0, 200) || `status ${answer.status}`);
  return answer.status === 204 ? null : answer.json();
}

// ---- Numbers, time, and what is said, by one event stream.

const KINDS = [["pages", "event streams of pages", "streams"], ["sockets", "WebSockets", "sockets"], ["downloads", "slow downloads", "slow"], ["other", "others", "other"], ["clocks", "long-lived requests", "clocks"]];
for (const [kind, name, colour] of KINDS) {
  const [item, dot, number] = ["li", "i", "b"].map(tag => document.createElement(tag));
  dot.style.setProperty("--c", `var(--${colour})`);
  number.dataset.n = kind;
  number.textContent = "0";
  item.append(dot, name + " ", number);
  $("kinds").append(item);
}

function listen() {
  const events = new EventSource(base + "live");
  const on = (name, act) => events.addEventListener(name, event => act(JSON.parse(event.data)));
  on("hello", hello => {
    page = hello.page;
    if (run !== hello.run) {
      run = hello.run;
      lastMessage = 0;
      $("log").textContent = "";
    }
    set("public", hello.public);
    set("most", figure(hello.most));
    set("longest", figure(Math.round(hello.longest / 6) / 10));
    state(true);
  });
  on("numbers", numbers);
  on("time", ms => {
    set("clock", timeOf(ms));
    $("clock").dateTime = new Date(ms).toISOString();
  });
  on("message", show);
  events.onerror = () => {
    page = "";
    state(false);
    // The browser tries again by itself, unless it got an error page.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}

let failed = 0;
function numbers(fresh) {
  now = fresh;
  now.other = Math.max(0, now.active - now.clocks - now.pages - now.sockets - now.downloads);
  for (const element of document.querySelectorAll("[data-n]")) set(element, figure(now[element.dataset.n]));
  for (const element of document.querySelectorAll("[data-word]")) {
    const plural = element.textContent.endsWith("s"), one = now[element.dataset.word] === 1;
    if (plural === one) element.textContent = one ? element.textContent.slice(0, -1) : element.textContent + "s";
  }
  $("single").hidden = now.active < 10 || now.connections < now.active * .9;
  keep(past, now.active, now.connections, now.clients.events);
  // Over a second or more, since each client gets an event every second.
  const then = past.findLast(point => point[0] <= past.at(-1)[0] - 3000) ?? past[0], last = past.at(-1);
  const rate = (last[3] - then[3]) / (last[0] - then[0]) * 1000;
  set("rate", figure(Math.round(Math.max(0, rate || 0))));
  if (now.clients.failed > failed) say(`${figure(now.clients.failed)} of the requests ended early: ${now.clients.why}.`, true);
  failed = now.clients.failed;
  if (asking) opened(now.clients);
  redraw();
}

// ---- Opening and closing.

const requests = n => `${figure(n)} ${n === 1 ? "request" : "requests"}`;

// Numbers that were on their way when the page asked do not count yet.
function opened({ opening, open, failed }) {
  asking.done ||= opening === 0 && open + failed >= asking.expected;
  if (!asking.done) return;
  if (open) note(`This page holds ${requests(open)} open.${asking.more}`);
  else say("The requests of this page are over.");
}

async function openMany(count) {
  if (!page) return say("There is no connection to the application.", true);
  // What there is by the time that it answers may be from before or after.
  const { open = 0, opening: waiting = 0, failed = 0 } = now.clients, before = open + waiting + failed;
  try {
    const { opening } = await post(`load?page=${page}&n=${count}`);
    const more = opening < count ? " More there may not be." : "";
    say(`${requests(opening)} more ${opening === 1 ? "is" : "are"} being opened.${more}`);
    asking = { expected: before + opening, more, done: false };
  } catch (why) {
    say(`Nothing was opened: ${why.message}.`, true);
  }
}

async function closeAll() {
  stopSlow();
  try {
    if (page) await post(`close?page=${page}`);
    say("All requests that this page asked for are closed.");
  } catch (why) {
    say(`Not closed: ${why.message}.`, true);
  }
}

for (const button of document.querySelectorAll("[data-open]")) button.onclick = () => openMany(Number(button.dataset.open));
$("close").onclick = closeAll;
$("keys").onchange = () => {
  document.body.classList.toggle("keys", $("keys").checked);
  try { localStorage.setItem("keys", $("keys").checked); } catch { /* A browser that keeps nothing. */ }
};
onkeydown = event => {
  const typing = event.target.matches?.("input[type=text], textarea");
  if (typing || !$("keys").checked || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const button = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (button) {
    event.preventDefault();
    button.click();
  }
};

// ---- Short requests, and WebSocket messages, one after the other.

async function probe() {
  for (;;) {
    const start = performance.now();
    try {
      const answer = await fetch(base + "ping");
      await answer.text();
      keep(fetches, answer.ok ? performance.now() - start : null, Boolean(reader));
    } catch {
      keep(fetches, null, false);
    }
    await pause(PROBE);
  }
}

const address = new URL(base + "echo", location.href);
address.protocol = address.protocol.replace("http", "ws");
let socket, asked = 0, tunnelled = false;
function connect() {
  socket = new WebSocket(address);
  const ask = () => {
    if (socket.readyState !== WebSocket.OPEN) return;
    asked = performance.now();
    socket.send(String(asked));
  };
  socket.onopen = () => {
    tunnelled = true;
    ask();
  };
  socket.onmessage = event => {
    if (event.data !== String(asked)) return;
    keep(echoes, performance.now() - asked);
    setTimeout(ask, PROBE);
  };
  socket.onclose = () => {
    keep(echoes, null);
    set("trip", "–");
    set("trips", tunnelled ? "reconnecting" : "This web server opens no WebSocket through FastCGI: nginx does with the module of this project.");
    setTimeout(connect, tunnelled ? 1000 + 1000 * Math.random() : 15000);
  };
}

const millis = ms => ms === undefined ? "–" : ms < 9.95 ? ms.toFixed(1) + " ms" : Math.round(ms) + " ms";
const sorted = list => list.map(point => point[1]).filter(ms => ms !== null).sort((a, b) => a - b);
const median = list => list[list.length >> 1];

function times() {
  const recent = sorted(fetches.slice(-25)), trips = sorted(echoes);
  set("fetched", millis(median(recent)));
  set("echoed", millis(median(sorted(echoes.slice(-25)))));
  const [with_, without] = [true, false].map(slow => sorted(fetches.filter(point => point[2] === slow)));
  set("compared", with_.length > 5 && without.length > 5 ? `median ${millis(median(without))} without the slow client, ${millis(median(with_))} beside it` : "\u00a0");
  if (socket.readyState !== WebSocket.OPEN || !trips.length) return;
  set("trip", millis(echoes.at(-1)[1] ?? undefined));
  set("trips", `Last minute: median ${millis(median(trips))}, slowest ${millis(trips.at(-1))}, ${figure(trips.length)} messages.`);
}

// ---- The slow client.

// Reads 64 KiB at a time, where the browser lets one say so.
function smallPieces(body) {
  try {
    const pieces = body.getReader({ mode: "byob" });
    return () => pieces.read(new Uint8Array(65536));
  } catch {
    const pieces = body.getReader();
    return () => pieces.read();
  }
}

let reader = null;
async function startSlow() {
  if (!page) return say("There is no connection to the application.", true);
  const abort = new AbortController();
  reader = { stop: () => abort.abort() };
  const mine = reader;
  slowTimes.push([performance.now(), Infinity]);
  $("slow").firstChild.data = "Stop the slow client";
  let read = 0, how = "stopped";
  try {
    const answer = await fetch(`${base}download?page=${page}`, { signal: abort.signal });
    if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
    const body = smallPieces(answer.body);
    say("The slow client has begun.");
    for (let next; !(next = await body()).done;) {
      read += next.value.length;
      mine.read = read;
      await pause(next.value.length / RATE * 1000);
      if (abort.signal.aborted) break;
    }
    if (!abort.signal.aborted) how = "has read everything";
  } catch (why) {
    if (!abort.signal.aborted) how = `was refused or cut off: ${why.message}`;
  }
  slowTimes.at(-1)[1] = performance.now();
  while (slowTimes.length > 50) slowTimes.shift();
  if (reader === mine) reader = null;
  $("slow").firstChild.data = "Start the slow client";
  set("slowed", `The slow client ${how}, after ${megabytes(read)}.`);
  $("progress").value = 0;
}
const stopSlow = () => reader?.stop();
const megabytes = bytes => (bytes / 1e6).toFixed(1) + " MB";
$("slow").onclick = () => reader ? stopSlow() : startSlow();

function slowness() {
  if (!reader) return;
  $("progress").value = reader.read ?? 0;
  set("slowed", `This page has read ${megabytes(reader.read ?? 0)}. The application was let to send ${megabytes(now.handed ?? 0)} of 200 MB so far, and waits with the rest.`);
}

// ---- The chat.

const timeOf = ms => new Date(ms).toLocaleTimeString([], { hourCycle: "h23" });
function show(message) {
  if (message.id <= lastMessage) return;
  lastMessage = message.id;
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const [item, head, name, time, text] = ["li", "div", "b", "time", "p"].map(tag => document.createElement(tag));
  name.textContent = message.name;
  time.textContent = timeOf(message.time);
  time.dateTime = new Date(message.time).toISOString();
  text.textContent = message.text;
  head.append(name, time);
  item.append(head, text);
  log.append(item);
  while (log.children.length > 200) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}
$("talk").onsubmit = async event => {
  event.preventDefault();
  const text = $("text").value;
  if (!text.trim()) return;
  $("text").value = "";
  $("text").focus();
  try {
    await post("message", { name: $("name").value, text });
  } catch (why) {
    say(`Not sent: ${why.message}.`, true);
    $("text").value ||= text;
  }
};

// ---- Drawing.

let colours = {};
function ink() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["text", "soft", "line", "accent", "then", "card", "clocks", "streams", "sockets", "slow", "other"]) colours[name] = style.getPropertyValue("--" + name).trim();
}

// A canvas as large as it is shown, cleared: what draws on it, in CSS pixels.
function begin(canvas) {
  const scale = Math.min(devicePixelRatio || 1, 3), width = canvas.clientWidth, height = canvas.clientHeight;
  const size = [width, height].map(side => Math.max(1, Math.round(side * scale)));
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "12px system-ui, sans-serif";
  return { context, width, height };
}

// Requests as dots, the web server and the application as bars, and between them a line for each connection.
function paths(canvas, connections, colour) {
  const { context, width, height } = begin(canvas);
  const bottom = height - 22, bar = 9, web = Math.round(width * .52), app = width - bar;
  const room = web - 10;
  // The largest cells that have room for all.
  let cell = 15;
  while (cell > .8 && Math.floor(room / cell) * Math.floor(bottom / cell) < now.active) cell -= cell > 4 ? .5 : .1;
  const rows = Math.max(1, Math.floor(bottom / cell)), dot = cell * .68;
  let index = 0;
  for (const [kind, , name] of KINDS) {
    context.fillStyle = colours[name];
    context.beginPath();
    for (let left = now[kind] ?? 0; left > 0; left--, index++) {
      const x = room - (Math.floor(index / rows) + .5) * cell, y = (index % rows + .5) * cell;
      if (dot > 3) {
        context.moveTo(x + dot / 2, y);
        context.arc(x, y, dot / 2, 0, 2 * Math.PI);
      } else context.rect(x - dot / 2, y - dot / 2, dot, dot);
    }
    context.fill();
  }
  const pitch = bottom / Math.max(1, connections), thick = Math.min(pitch * .7, 10);
  context.fillStyle = colours[colour];
  for (let line = 0; line < connections; line++) context.fillRect(web + bar, (line + .5) * pitch - thick / 2, app - web - bar, thick);
  context.fillStyle = colours.text;
  for (const x of [web, app]) {
    context.beginPath();
    context.roundRect(x, 0, bar, bottom, 3);
    context.fill();
  }
  context.fillStyle = colours.soft;
  for (const [text, x, align] of [["requests", 0, "left"], ["web server", web + bar / 2, "center"], ["application", width, "right"]]) {
    context.textAlign = align;
    context.fillText(text, x, height - 5);
  }
}

// The least of 1, 2, 5, 10, … that is no less.
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return [1, 2, 5, 10].map(step => step * power).find(step => step >= value * .999);
}

// The last minute of lists of [time, value …]; a value of null is a gap. Values go from 0 to a ceiling, or times by powers of ten.
function plot(canvas, powers, lines, bands = []) {
  const { context, width, height } = begin(canvas);
  const end = performance.now(), left = 52, bottom = height - 20, top = 7;
  let most = 10;
  for (const { list, at } of lines) for (const point of list) if (point[0] > end - MINUTE) most = Math.max(most, point[at] ?? 0);
  let marks = [0, .5, 1].map(part => ceiling(most) * part), share = value => value / marks.at(-1);
  if (powers) {
    marks = [.1, 1, 10, 100, 1000, 10000].slice(0, most > 1000 ? 6 : most > 100 ? 5 : 4);
    share = value => Math.max(0, Math.log10(value / .1)) / (marks.length - 1);
  }
  const x = time => left + (width - left) * Math.max(0, 1 - (end - time) / MINUTE), y = value => bottom - (bottom - top) * share(value);
  context.fillStyle = colours.slow;
  context.globalAlpha = .14;
  for (const [from, to] of bands) if (to > end - MINUTE) context.fillRect(x(from), top, x(Math.min(to, end)) - x(from), bottom - top);
  context.globalAlpha = 1;
  context.strokeStyle = colours.line;
  context.fillStyle = colours.soft;
  context.lineWidth = 1;
  for (const mark of marks) {
    const line = Math.round(y(mark)) + .5;
    context.beginPath();
    context.moveTo(left, line);
    context.lineTo(width, line);
    context.stroke();
    context.textAlign = "right";
    context.fillText(!powers ? figure(mark) : mark < 1000 ? `${mark} ms` : `${mark / 1000} s`, left - 6, line + 4);
  }
  context.textAlign = "left";
  context.fillText("1 minute ago", left, height - 4);
  context.textAlign = "right";
  context.fillText("now", width, height - 4);
  for (const { list, at, colour, thick } of lines) {
    context.strokeStyle = colours[colour];
    context.lineWidth = thick;
    context.lineJoin = "round";
    context.beginPath();
    let pen = false;
    for (const point of list) {
      if (point[at] === null) pen = false;
      else if (point[0] > end - MINUTE) {
        context[pen ? "lineTo" : "moveTo"](x(point[0]), y(point[at]));
        pen = true;
      }
    }
    context.stroke();
  }
}

function draw() {
  const [left, right] = ["now", "then"].map(id => document.querySelector(`#${id} canvas`));
  paths(left, now.connections, "accent");
  paths(right, now.active, "then");
  plot($("history"), false, [{ list: past, at: 1, colour: "then", thick: 2 }, { list: past, at: 2, colour: "accent", thick: 3 }]);
  plot($("latency"), true, [{ list: fetches, at: 1, colour: "streams", thick: 1.5 }, { list: echoes, at: 1, colour: "sockets", thick: 1.5 }], slowTimes);
  times();
  slowness();
}

let drawn = 0, waiting = false, told = 0;
function redraw() {
  if (waiting || calm.matches && performance.now() - drawn < 1000) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    drawn = performance.now();
    draw();
  });
  // For those who do not see the drawings, now and then.
  if (performance.now() - told < 5000) return;
  told = performance.now();
  document.querySelector("#now canvas").setAttribute("aria-label", `${figure(now.active)} requests in flight on ${figure(now.connections)} connections between web server and application`);
  document.querySelector("#then canvas").setAttribute("aria-label", `The same with ${figure(now.active)} connections`);
}

function recolour() {
  ink();
  draw();
}

try {
  $("name").value = localStorage.getItem("name") ?? "";
  $("name").onchange = () => localStorage.setItem("name", $("name").value);
  $("keys").checked = localStorage.getItem("keys") !== "false";
  $("keys").onchange();
} catch { /* A browser that keeps nothing. */ }
connect();
recolour();
matchMedia("(prefers-color-scheme: dark)").onchange = recolour;
new ResizeObserver(redraw).observe(document.body);
listen();
probe();
