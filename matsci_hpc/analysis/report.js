"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["toImage", "resetScale2d"]],
    toImageButtonOptions: { format: "svg", filename: "matsci-hpc" },
  };
  for (const [id, figure] of Object.entries(figures)) {
    // On a touch screen a drag scrolls the page; with a mouse it zooms.
    figure.layout.dragmode = touch ? false : "zoom";
    Plotly.newPlot(id, figure.data, figure.layout, config);
  }

  // Paper has its own width, which the charts do not learn from the browser, and nothing on it unfolds.
  const paperWidth = { wide: 690, half: 336 };
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const part of folded) part.open = true;
    for (const chart of document.querySelectorAll(".chart")) {
      Plotly.relayout(chart, { width: paperWidth[chart.dataset.size], autosize: false });
    }
  });
  window.addEventListener("afterprint", () => {
    for (const part of folded) part.open = false;
    for (const chart of document.querySelectorAll(".chart")) {
      Plotly.relayout(chart, { width: null, autosize: true });
    }
  });
})();
