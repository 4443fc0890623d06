"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);

  // Tips: on hover, touch, and by arrow keys inside a chart or heat map.
  const tip = $("tip");
  const showTip = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(6, x + 14), innerWidth - box.width - 6);
    const top = y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18;
    tip.style.left = `${left}px`;
    tip.style.top = `${Math.max(6, top)}px`;
  };
  const hideTip = () => {
    tip.hidden = true;
    document.querySelectorAll(".pt.on").forEach((point) => point.classList.remove("on"));
  };
  const showPoint = (point) => {
    hideTip();
    point.classList.add("on");
    const box = point.querySelector(".hit").getBoundingClientRect();
    showTip(point.dataset.tip, box.x + box.width / 2, box.y + box.height / 2);
  };
  document.querySelectorAll(".chart").forEach((chart) => {
    const points = [...chart.querySelectorAll(".pt")];
    let at = -1;
    chart.addEventListener("pointerover", (event) => {
      const point = event.target.closest(".pt");
      if (point) { at = points.indexOf(point); showPoint(point); }
    });
    chart.addEventListener("pointerleave", hideTip);
    chart.addEventListener("blur", hideTip);
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hideTip();
      if (!step || !points.length) return;
      event.preventDefault();
      at = (at + step + points.length) % points.length;
      showPoint(points[at]);
    });
  });

  const byId = new Map(data.cells.map((cell) => [cell.id, cell]));
  document.querySelectorAll(".heat").forEach((image) => {
    const rows = byId.get(image.dataset.cell).rows;
    const steps = image.naturalHeight, frames = image.naturalWidth;
    let step = 0, frame = -1;
    const show = () => {
      const box = image.getBoundingClientRect();
      const strength = rows[Math.min(step, rows.length - 1)][frame];
      const text = strength === 1 ? "1 (off)" : strength;
      showTip(`step ${step}, frame ${frame}\nstrength ${text}`,
        box.x + ((frame + 0.5) / frames) * box.width, box.y + ((step + 0.5) / steps) * box.height);
    };
    image.addEventListener("pointermove", (event) => {
      const box = image.getBoundingClientRect();
      const share = (value, size) => Math.min(size - 1, Math.max(0, Math.floor(value * size)));
      step = share((event.clientY - box.y) / box.height, image.naturalHeight || steps);
      frame = share((event.clientX - box.x) / box.width, rows[0].length);
      show();
    });
    image.addEventListener("pointerleave", hideTip);
    image.addEventListener("blur", hideTip);
    image.addEventListener("keydown", (event) => {
      const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
      if (!(event.key in move)) return;
      event.preventDefault();
      step = Math.min(image.naturalHeight - 1, Math.max(0, step + move[event.key][0]));
      frame = Math.min(rows[0].length - 1, Math.max(0, frame + move[event.key][1]));
      show();
    });
  });

  // The table of numbers: a heading sorts, again turns round.
  const table = $("table");
  table.querySelectorAll("thead th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const isDown = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      const key = (row) => {
        const entry = row.children[column];
        if (!("value" in entry.dataset)) return entry.textContent;
        return entry.dataset.value === "" ? Infinity : Number(entry.dataset.value);
      };
      const rows = [...table.tBodies[0].rows].sort((one, other) => {
        const [a, b] = [key(one), key(other)];
        if (typeof a === "string") return a.localeCompare(b, undefined, { numeric: true });
        return a - b || 0;
      });
      table.tBodies[0].append(...(isDown ? rows.reverse() : rows));
    });
  });

  if (!$("player")) return;

  // Players: one frame number for everything that is shown.
  const sides = ["a", "b"];
  const state = { frame: 0, count: 1, playing: false, row: 0, strips: {}, errors: [] };
  window.vidcfgReport = state;
  const prompts = [...new Set(data.pairs.map((pair) => pair.prompt))];
  const option = (text, value) => {
    const made = document.createElement("option");
    made.textContent = text;
    made.value = value;
    return made;
  };
  $("prompt").append(...prompts.map((prompt, index) => option(prompt, index)));
  const fillSeeds = () => {
    const prompt = prompts[$("prompt").value];
    const kept = $("seed").selectedIndex;
    const own = data.pairs.map((pair, index) => [pair, index]).filter(([p]) => p.prompt === prompt);
    $("seed").replaceChildren(...own.map(([pair, index]) => option(pair.seed ?? "–", index)));
    $("seed").selectedIndex = Math.min(Math.max(0, kept), own.length - 1);
  };
  sides.forEach((side) => {
    $(`cell-${side}`).append(...data.cells.map((cell, index) => option(cell.label, index)));
  });
  $("cell-a").value = data.baseline;
  $("cell-b").value = data.baseline === data.cells.length - 1 ? 0 : data.cells.length - 1;

  const images = new Map();
  const imageOf = async (src) => {
    if (!images.has(src)) {
      const image = new Image();
      image.src = src;
      images.set(src, image.decode().then(() => image));
    }
    return images.get(src);
  };
  const contextOf = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

  let loading = 0;
  const load = async () => {
    const turn = ++loading;
    const found = {};
    for (const side of sides) {
      const strip = data.strips[`${$(`cell-${side}`).value}/${$("seed").value}`];
      if (!strip) { found[side] = null; continue; }
      const canvas = document.createElement("canvas");
      const image = await imageOf(strip.src);
      [canvas.width, canvas.height] = [image.width, image.height];
      contextOf(canvas).drawImage(image, 0, 0);
      found[side] = { ...strip, canvas, cell: data.cells[$(`cell-${side}`).value] };
    }
    if (turn !== loading) return;
    state.strips = found;
    const there = sides.map((side) => found[side]).filter(Boolean);
    state.count = Math.max(1, ...there.map((strip) => strip.frames.length));
    $("frame").max = state.count - 1;
    const height = Math.max(1, ...there.map((strip) => strip.height));
    $("row").max = height - 1;
    if (state.height !== height) { state.height = height; state.row = height >> 1; }
    $("row").value = state.row;
    sides.forEach(drawSheet);
    show(Math.min(state.frame, state.count - 1));
    drawSlices();
  };

  const frameOf = (strip, frame) => Math.min(frame, strip.frames.length - 1);
  const strengthOf = (strip, frame) => {
    const rows = strip.cell.rows;
    if (!rows) return "";
    const values = rows.map((row) => row[strip.frames[frame]]).filter((value) => value != null);
    if (!values.length) return "";
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const text = (value) => (value === 1 ? "1 off" : String(Math.round(value * 100) / 100));
    return low === high ? text(low) : `${text(low)}–${text(high)}`;
  };
  const drawFrame = (canvas, strip, frame) => {
    [canvas.width, canvas.height] = [strip.width, strip.height];
    contextOf(canvas).drawImage(strip.canvas, -frame * strip.width, 0);
  };
  const markRow = (canvas) => {
    const context = contextOf(canvas);
    context.fillStyle = "rgba(255,255,255,.35)";
    context.fillRect(0, state.row, 2, 1);
    context.fillRect(canvas.width - 2, state.row, 2, 1);
  };

  const show = (frame) => {
    state.frame = frame;
    for (const side of sides) {
      const strip = state.strips[side], canvas = $(`view-${side}`);
      if (!strip) {
        [canvas.width, canvas.height] = [4, 4];
        $(`caption-${side}`).textContent = `${side.toUpperCase()}: no video here`;
        delete canvas.dataset.frame;
        continue;
      }
      const own = frameOf(strip, frame);
      drawFrame(canvas, strip, own);
      canvas.dataset.frame = own;
      const strength = strengthOf(strip, own);
      $(`caption-${side}`).textContent =
        side.toUpperCase() + (strength && ` · strength ${strength}`);
    }
    drawDifference();
    for (const side of sides) if (state.strips[side]) markRow($(`view-${side}`));
    $("frame").value = frame;
    $("number").textContent = `${frame + 1} / ${state.count}`;
    for (const side of sides) {
      [...$(`sheet-${side}`).children].forEach((button, index) => {
        button.classList.toggle("on", index === frame);
      });
    }
  };

  const drawDifference = () => {
    const { a, b } = state.strips;
    const canvas = $("view-d");
    if (!a || !b || a.width !== b.width || a.height !== b.height) {
      [canvas.width, canvas.height] = [4, 4];
      $("distance").textContent = a && b ? "other sizes" : "";
      return;
    }
    [canvas.width, canvas.height] = [a.width, a.height];
    const one = contextOf($("view-a")).getImageData(0, 0, a.width, a.height);
    const other = contextOf($("view-b")).getImageData(0, 0, a.width, a.height);
    const gain = Number($("gain").value);
    let sum = 0;
    for (let i = 0; i < one.data.length; i++) {
      if (i % 4 === 3) continue;
      const difference = Math.abs(one.data[i] - other.data[i]);
      sum += difference;
      one.data[i] = difference * gain;
    }
    contextOf(canvas).putImageData(one, 0, 0);
    state.distance = sum / (one.data.length * 0.75);
    $("distance").textContent = `mean ${state.distance.toFixed(2)} levels`;
  };

  const drawSlices = () => {
    for (const side of sides) {
      const strip = state.strips[side], canvas = $(`slice-${side}`);
      if (!strip) { [canvas.width, canvas.height] = [4, 4]; continue; }
      const count = strip.frames.length;
      [canvas.width, canvas.height] = [strip.width, count];
      canvas.style.aspectRatio = "2.4";
      const row = Math.min(state.row, strip.height - 1);
      for (let t = 0; t < count; t++) {
        contextOf(canvas).drawImage(
          strip.canvas, t * strip.width, row, strip.width, 1, 0, t, strip.width, 1);
      }
    }
    $("row-number").textContent = `row ${state.row}`;
  };

  const drawSheet = (side) => {
    const strip = state.strips[side];
    $(`sheet-${side}`).replaceChildren(...(strip ? strip.frames : []).map((number, index) => {
      const button = document.createElement("button");
      const canvas = document.createElement("canvas");
      drawFrame(canvas, strip, index);
      button.type = "button";
      button.append(canvas, `${number} · ${strengthOf(strip, index) || "–"}`);
      button.addEventListener("click", () => { pause(); show(index); });
      return button;
    }));
  };

  let last = 0, owed = 0;
  const tick = (now) => {
    if (!state.playing) return;
    const strip = state.strips.a || state.strips.b;
    if (strip) {
      owed += Math.min(now - last, 500) * strip.fps * Number($("speed").value) / 1000;
      const steps = Math.floor(owed);
      owed -= steps;
      if (steps) show((state.frame + steps) % state.count);
    }
    last = now;
    requestAnimationFrame(tick);
  };
  const play = () => {
    state.playing = true;
    [last, owed] = [performance.now(), 0];
    $("play").textContent = "❚❚ Pause";
    $("play").setAttribute("aria-pressed", "true");
    requestAnimationFrame(tick);
  };
  const pause = () => {
    state.playing = false;
    $("play").textContent = "▶ Play";
    $("play").setAttribute("aria-pressed", "false");
  };
  const step = (by) => { pause(); show((state.frame + by + state.count) % state.count); };

  $("play").addEventListener("click", () => (state.playing ? pause() : play()));
  $("back").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("frame").addEventListener("input", () => { pause(); show(Number($("frame").value)); });
  $("gain").addEventListener("change", () => show(state.frame));
  $("row").addEventListener("input", () => {
    state.row = Number($("row").value);
    show(state.frame);
    drawSlices();
  });
  $("prompt").addEventListener("change", () => { fillSeeds(); load(); });
  ["seed", "cell-a", "cell-b"].forEach((id) => $(id).addEventListener("change", load));
  $("swap").addEventListener("click", () => {
    [$("cell-a").value, $("cell-b").value] = [$("cell-b").value, $("cell-a").value];
    load();
  });
  $("player").addEventListener("keydown", (event) => {
    if (event.target.matches("select, input, button, summary")) return;
    if (event.key === " ") { event.preventDefault(); state.playing ? pause() : play(); }
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  fillSeeds();
  load();
})();
