(() => {
  "use strict";
  const PAPER = 680; // CSS pixels between the margins of a printed page
  const root = document.documentElement;
  const specs = new Map();
  const picked = new Map();

  // Colours are names of CSS variables, so that every plot follows light, dark and paper.
  const coloured = (value, style) => {
    if (typeof value === "string") return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return value.map((item) => coloured(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
  };

  const merged = (base, over) => {
    const result = { ...base };
    for (const [key, value] of Object.entries(over)) {
      const both = [result[key], value].every((v) => v !== null && typeof v === "object" && !Array.isArray(v));
      result[key] = both ? merged(result[key], value) : value;
    }
    return result;
  };

  const arranged = (layout, width, box) => {
    const narrow = width < 560;
    const axis = {
      gridcolor: "--line",
      linecolor: "--line",
      zerolinecolor: "--line",
      tickfont: { color: "--muted" },
      title: { font: { color: "--muted", size: 12 }, standoff: 8 },
      automargin: true,
    };
    const whole = merged(
      {
        autosize: false,
        width,
        height: box.clientHeight,
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: "system-ui, sans-serif", size: narrow ? 11 : 12.5, color: "--ink" },
        margin: { l: narrow ? 40 : 56, r: narrow ? 8 : 16, t: 12, b: 44 },
        hovermode: "closest",
        hoverlabel: { bgcolor: "--card", bordercolor: "--line", font: { color: "--ink", size: 12 }, align: "left" },
        legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { color: "--ink" } },
        dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      },
      layout,
    );
    for (const key of Object.keys(whole)) if (/^[xy]axis/.test(key)) whole[key] = merged(axis, whole[key]);
    return whole;
  };

  const draw = (box) => {
    const spec = specs.get(box.id);
    const style = getComputedStyle(root);
    const choice = spec.choices[picked.get(box.id)] || {};
    const data = spec.data.map((trace, n) => {
      const base = { type: "scatter", ...trace, ...((choice.traces || [])[n] || {}) };
      return choice.y ? { ...base, y: choice.y[n] } : base;
    });
    const width = root.dataset.paper ? PAPER : box.clientWidth;
    const layout = arranged(merged(spec.layout, choice.layout || {}), width, box);
    const config = { displayModeBar: false, responsive: false, doubleClick: "reset" };
    return Plotly.react(box, coloured(data, style), coloured(layout, style), config).then(() => {
      box.dataset.drawn = String(box.querySelectorAll(".trace, .point").length);
    });
  };

  const boxes = [...document.querySelectorAll(".plot")];
  const all = () => Promise.all(boxes.map(draw));
  for (const data of document.querySelectorAll('script[type="application/json"][data-plot]')) {
    const spec = JSON.parse(data.textContent);
    specs.set(data.dataset.plot, spec);
    picked.set(data.dataset.plot, Object.keys(spec.choices)[0]);
  }
  for (const group of document.querySelectorAll(".choices")) {
    group.addEventListener("click", (event) => {
      const choice = event.target.dataset.choice;
      if (choice === undefined) return;
      for (const button of group.children) button.setAttribute("aria-pressed", String(button === event.target));
      picked.set(group.dataset.plot, choice);
      draw(document.getElementById(group.dataset.plot));
    });
  }

  // The width alone matters: a phone's address bar comes and goes while its reader scrolls.
  const widths = new Map();
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (root.dataset.paper || widths.get(target) === target.clientWidth) continue;
      widths.set(target, target.clientWidth);
      draw(target);
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  addEventListener("beforeprint", () => {
    root.dataset.paper = "yes";
    all();
  });
  addEventListener("afterprint", () => {
    delete root.dataset.paper;
    all();
  });
  for (const box of boxes) widths.set(box, box.clientWidth);
  all().then(() => {
    root.dataset.plots = String(boxes.length);
    for (const box of boxes) observer.observe(box);
  });
})();
