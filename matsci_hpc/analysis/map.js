"use strict";
(() => {
  const drawing = JSON.parse(document.getElementById("drawing").textContent);
  const { colors, marks, other, absent, ramp, maps, colorings } = drawing;
  const select = document.getElementById("by");
  const legend = document.getElementById("legend");
  const hidden = new Set(); // numbers of the classes that are not shown
  const REACH = 12; // pixels from the pointer to a point that is still meant
  let coloring = colorings[0];

  const shade = (share) => {
    const place = Math.min(1, Math.max(0, share)) * (ramp.length - 1);
    const low = Math.min(ramp.length - 2, Math.floor(place));
    const parts = [1, 3, 5].map((start) => {
      const [from, to] = [ramp[low], ramp[low + 1]].map((text) => parseInt(text.slice(start, start + 2), 16));
      return Math.round(from + (to - from) * (place - low));
    });
    return `rgb(${parts.join(",")})`;
  };
  const look = (number) => {
    if (number < 0) return [absent, "circle"];
    if (number >= coloring.names.length) return [other, "circle"];
    return [colors[number % colors.length], marks[Math.floor(number / colors.length)]];
  };
  const outline = (pen, mark, x, y, r) => {
    pen.beginPath();
    if (mark === "circle") pen.arc(x, y, r, 0, 2 * Math.PI);
    else if (mark === "square") pen.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
    else {
      const corners = mark === "triangle" ? [[0, -1.25], [1.15, 0.85], [-1.15, 0.85]] : [[0, -1.3], [1.1, 0], [0, 1.3], [-1.1, 0]];
      corners.forEach(([dx, dy], n) => (n ? pen.lineTo(x + dx * r, y + dy * r) : pen.moveTo(x + dx * r, y + dy * r)));
      pen.closePath();
    }
    pen.fill();
  };

  class Plot {
    constructor(frame) {
      this.map = maps[Number(frame.dataset.map)];
      this.number = Number(frame.dataset.map);
      this.frame = frame;
      this.canvas = frame.querySelector("canvas");
      this.box = frame.querySelector(".box");
      this.tip = frame.querySelector(".tip");
      this.home = this.whole();
      this.view = this.home;
      this.listen();
    }

    // The middle of all points and the half of their extent, which fills the shorter side.
    whole() {
      const ends = [this.map.x, this.map.y].map((values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]));
      const middle = ends.map(([low, high]) => (low + high) / 2);
      const half = ends.map(([low, high]) => Math.max(0.53 * (high - low), 1e-9));
      return { x: middle[0], y: middle[1], halfX: half[0], halfY: half[1] };
    }

    // Screen pixels of a unit, the same along both axes: distances are to be seen as they are.
    scale() {
      return Math.min(this.width / (2 * this.view.halfX), this.height / (2 * this.view.halfY));
    }

    draw() {
      this.width = this.canvas.clientWidth;
      this.height = this.canvas.clientHeight;
      if (!this.width) return;
      const dense = Math.max(2, window.devicePixelRatio || 1); // sharp on paper, too
      this.canvas.width = this.width * dense;
      this.canvas.height = this.height * dense;
      const pen = this.canvas.getContext("2d");
      pen.setTransform(dense, 0, 0, dense, 0, 0);
      pen.clearRect(0, 0, this.width, this.height);
      const count = this.map.x.length;
      const zoom = this.scale() / Math.min(this.width / (2 * this.home.halfX), this.height / (2 * this.home.halfY));
      const radius = Math.min(5, (count > 8000 ? 1.6 : count > 2000 ? 2.1 : count > 400 ? 2.8 : 3.6) * Math.sqrt(Math.max(1, zoom)) ** 0.6);
      pen.globalAlpha = count > 400 ? 0.72 : 0.85;
      this.grid = new Map();
      const scale = this.scale();
      const later = [];
      for (let n = 0; n < count; n++) {
        const x = this.width / 2 + (this.map.x[n] - this.view.x) * scale;
        const y = this.height / 2 - (this.map.y[n] - this.view.y) * scale;
        if (x < -radius || y < -radius || x > this.width + radius || y > this.height + radius) continue;
        const known = coloring.names ? coloring.numbers[this.number][n] : coloring.values[this.number][n];
        if (coloring.names && hidden.has(known)) continue;
        const cell = `${Math.floor(x / REACH)},${Math.floor(y / REACH)}`;
        if (!this.grid.has(cell)) this.grid.set(cell, []);
        this.grid.get(cell).push([n, x, y]);
        if (known === null || known < 0 && coloring.names) this.point(pen, known, x, y, radius);
        else later.push([known, x, y]); // above those of which nothing is known
      }
      for (const [known, x, y] of later) this.point(pen, known, x, y, radius);
      this.radius = radius;
    }

    point(pen, known, x, y, radius) {
      if (coloring.names) {
        const [color, mark] = look(known);
        pen.fillStyle = color;
        outline(pen, mark, x, y, radius);
      } else {
        pen.fillStyle = known === null ? absent : shade((known - coloring.low) / (coloring.high - coloring.low));
        outline(pen, "circle", x, y, radius);
      }
    }

    nearest(x, y) {
      let best = null;
      let least = REACH ** 2;
      const [column, row] = [Math.floor(x / REACH), Math.floor(y / REACH)];
      for (let dx = -1; dx <= 1; dx++) {
        for (let dy = -1; dy <= 1; dy++) {
          for (const [n, px, py] of this.grid.get(`${column + dx},${row + dy}`) || []) {
            const squared = (px - x) ** 2 + (py - y) ** 2;
            if (squared < least) [least, best] = [squared, [n, px, py]];
          }
        }
      }
      return best;
    }

    // Text only, never markup: names come from data files.
    tell(found) {
      if (!found) {
        this.tip.style.display = "none";
        return;
      }
      const [n, x, y] = found;
      const title = document.createElement("b");
      title.textContent = this.map.ids[n];
      this.tip.replaceChildren(title);
      const lines = [this.map.formulas[n]];
      for (const each of colorings) {
        if (each.names) {
          const known = each.numbers[this.number][n];
          if (known >= 0) lines.push(`${each.title}: ${known < each.names.length ? each.names[known] : "one of the rarer ones"}`);
        } else if (each.values[this.number][n] !== null) lines.push(`${each.title}: ${each.values[this.number][n]}`);
      }
      for (const text of lines) {
        const line = document.createElement("div");
        line.textContent = text;
        this.tip.append(line);
      }
      this.tip.style.display = "block";
      const left = x + 14 + this.tip.offsetWidth > this.width ? x - 14 - this.tip.offsetWidth : x + 14;
      this.tip.style.left = `${Math.max(2, left)}px`;
      this.tip.style.top = `${Math.max(2, Math.min(y + 8, this.height - this.tip.offsetHeight - 2))}px`;
    }

    listen() {
      let start = null;
      const at = (event) => {
        const edge = this.canvas.getBoundingClientRect();
        return [event.clientX - edge.left, event.clientY - edge.top];
      };
      this.canvas.addEventListener("pointerdown", (event) => {
        if (event.pointerType === "touch" || event.button) return; // a finger scrolls the page
        start = at(event);
        this.canvas.setPointerCapture(event.pointerId);
        this.tell(null);
      });
      this.canvas.addEventListener("pointermove", (event) => {
        const here = at(event);
        if (!start) {
          this.tell(this.nearest(...here));
          return;
        }
        const [left, top] = [0, 1].map((n) => Math.min(start[n], here[n]));
        const [wide, high] = [0, 1].map((n) => Math.abs(start[n] - here[n]));
        Object.assign(this.box.style, { display: "block", left: `${left}px`, top: `${top}px`, width: `${wide}px`, height: `${high}px` });
      });
      this.canvas.addEventListener("pointerup", (event) => {
        if (event.pointerType === "touch") this.tell(this.nearest(...at(event)));
        if (!start) return;
        const here = at(event);
        const scale = this.scale();
        const [wide, high] = [0, 1].map((n) => Math.abs(start[n] - here[n]));
        if (wide > 6 && high > 6) {
          this.view = {
            x: this.view.x + ((start[0] + here[0]) / 2 - this.width / 2) / scale,
            y: this.view.y - ((start[1] + here[1]) / 2 - this.height / 2) / scale,
            halfX: wide / 2 / scale,
            halfY: high / 2 / scale,
          };
          this.draw();
        }
        start = null;
        this.box.style.display = "none";
      });
      this.canvas.addEventListener("pointercancel", () => {
        start = null;
        this.box.style.display = "none";
      });
      this.canvas.addEventListener("pointerleave", () => start || this.tell(null));
      this.canvas.addEventListener("dblclick", () => {
        this.view = this.home;
        this.draw();
      });
    }
  }

  const plots = [...document.querySelectorAll(".plot")].map((frame) => new Plot(frame));
  const drawAll = () => plots.forEach((plot) => plot.draw());

  const swatch = (number) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 28;
    const pen = canvas.getContext("2d");
    const [color, mark] = look(number);
    pen.fillStyle = color;
    outline(pen, mark, 14, 14, 9);
    return canvas;
  };
  // Of the map that has most of all: the same samples are not to count twice.
  const most = (test) => Math.max(...coloring.numbers.map((numbers) => numbers.filter(test).length));
  const entry = (number, name, count) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const label = document.createElement("span");
    label.textContent = name;
    const small = document.createElement("small");
    small.textContent = count.toLocaleString("en").replaceAll(",", "\u202f");
    button.append(swatch(number), label, small);
    button.setAttribute("aria-pressed", String(!hidden.has(number)));
    button.addEventListener("click", () => {
      if (!hidden.delete(number)) hidden.add(number);
      show();
    });
    button.addEventListener("dblclick", () => {
      hidden.clear();
      for (let n = -1; n <= coloring.names.length; n++) if (n !== number) hidden.add(n);
      show();
    });
    button.dataset.number = number;
    item.append(button);
    return item;
  };
  const key = (...parts) => {
    const item = document.createElement("li");
    item.className = "key";
    item.append(...parts);
    return item;
  };
  const fill = () => {
    if (!coloring.names) {
      const bar = document.createElement("span");
      bar.className = "ramp";
      bar.style.background = `linear-gradient(to right, ${ramp.join(", ")})`;
      const parts = [key(coloring.ends[0], bar, coloring.ends[1])];
      if (coloring.values.some((values) => values.includes(null))) parts.push(key(swatch(-1), "not known"));
      legend.replaceChildren(...parts);
      return;
    }
    const parts = coloring.names.map((name, number) => entry(number, name, coloring.counts[number]));
    if (coloring.others[0]) parts.push(entry(coloring.names.length, `${coloring.others[0]} rarer ones`, coloring.others[1]));
    const unknown = most((n) => n < 0);
    if (unknown) parts.push(entry(-1, "not known", unknown));
    legend.replaceChildren(...parts);
  };
  // The buttons stay while they are pressed: a double-click needs the same one twice.
  const show = () => {
    for (const button of legend.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(!hidden.has(Number(button.dataset.number))));
    }
    drawAll();
  };

  colorings.forEach((each, number) => select.add(new Option(each.title, String(number))));
  select.addEventListener("change", () => {
    coloring = colorings[Number(select.value)];
    hidden.clear();
    fill();
    drawAll();
  });
  document.getElementById("all").addEventListener("click", () => {
    hidden.clear();
    for (const plot of plots) plot.view = plot.home;
    show();
  });

  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const part of folded) part.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const part of folded) part.open = false;
  });
  new ResizeObserver(drawAll).observe(document.querySelector(".charts"));
  fill();
  drawAll();
  document.documentElement.dataset.drawn = String(plots.length); // a sign for whoever looks from outside
})();
