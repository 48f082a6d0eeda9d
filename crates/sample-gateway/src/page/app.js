"use strict";
(() => {
  const BARS = 60, PAUSE_MS = 500, RECONNECT_MS = 250, LINES = 6;
  const at = (id) => document.getElementById(id);
  const show = (id, text) => { at(id).textContent = String(text); };
  const counts = { answered: 0, lost: 0, longest: 0 };
  let server = null, bornAt = 0, lostAt = null, sequence = 0;

  function log(text) {
    const line = document.createElement("li"), time = document.createElement("time"), what = document.createElement("span");
    time.textContent = new Date().toLocaleTimeString();
    what.textContent = text;
    line.append(time, what);
    at("log").prepend(line);
    while (at("log").children.length > LINES) at("log").lastChild.remove();
  }

  function state(text, kind) {
    show("state", text);
    at("state").className = "state " + kind;
  }

  // Page and process of different builds: fetch the page anew, but once only, since a process may not tell the truth.
  function reloadOnceFor(build) {
    if (build === document.querySelector("meta[name=build]").content) return;
    if (sessionStorage.getItem("reloaded-for") === build) return;
    sessionStorage.setItem("reloaded-for", build);
    location.reload();
  }

  function met(hello) {
    if (server && server.bootId !== hello.bootId) log("now served by " + hello.version + ", pid " + hello.pid);
    if (lostAt !== null) log("connected again after " + Math.round(performance.now() - lostAt) + " ms");
    lostAt = null;
    server = hello;
    document.title = "Sample gateway " + hello.version;
    show("version", hello.version);
    show("build", hello.buildId);
    show("pid", hello.pid);
    show("boot", hello.bootId.slice(0, 8));
    state("live", "open");
    reloadOnceFor(hello.buildId);
  }

  function connect() {
    const scheme = location.protocol === "https:" ? "wss://" : "ws://";
    const socket = new WebSocket(scheme + location.host + "/ws");
    const send = (id, method, params) => socket.send(JSON.stringify({ type: "req", id, method, params }));
    socket.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      if (frame.event === "connect.challenge") send("connect", "connect", { minProtocol: 3, maxProtocol: 99 });
      if (frame.id === "connect" && frame.ok) met(frame.payload.server);
      if (frame.event === "tick") bornAt = Date.now() - frame.payload.uptimeMs;
      if (frame.event === "shutdown") log("the gateway says goodbye: " + frame.payload.reason);
    };
    socket.onclose = ({ code }) => {
      if (lostAt === null) {
        lostAt = performance.now();
        state("reconnecting", "lost");
        if (server) log("connection closed, code " + code);
      }
      setTimeout(connect, RECONNECT_MS);
    };
  }

  function bar(wait, failed) {
    const mark = document.createElement("i"), steps = [10, 30, 100, 400, 1500];
    const height = 1 + steps.filter((step) => wait > step).length;
    mark.className = "h" + (failed ? 6 : height) + (failed ? " failed" : wait > 400 ? " held" : "");
    at("strip").append(mark);
    while (at("strip").children.length > BARS) at("strip").firstChild.remove();
  }

  async function ask() {
    const began = performance.now();
    let failed = false;
    try {
      const answer = await fetch("/chunk/" + sequence++, { cache: "no-store" });
      failed = !answer.ok;
      await answer.text();
    } catch {
      failed = true;
    }
    const wait = Math.round(performance.now() - began);
    counts[failed ? "lost" : "answered"] += 1;
    counts.longest = Math.max(counts.longest, wait);
    for (const [id, count] of Object.entries(counts)) show(id, count);
    bar(wait, failed);
    setTimeout(ask, PAUSE_MS);
  }

  function clock() {
    const seconds = Math.floor((Date.now() - bornAt) / 1000);
    if (bornAt) show("uptime", seconds < 60 ? seconds + " s" : Math.floor(seconds / 60) + " min " + (seconds % 60) + " s");
  }

  connect();
  ask();
  setInterval(clock, 250);
})();
