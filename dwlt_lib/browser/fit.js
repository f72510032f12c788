// plotly may draw before its box has a width, and then takes 700 px: a drawn figure whose width is
// not that of its box is told to measure again
const AGAIN = 150;  // ms
export default { render({ model, el }) {
  let fitted = null;
  const fit = (figure, tries) => {
    const box = figure.closest(".widget-vbox");
    if (!box || figure !== fitted) return;
    if (Math.abs(figure.clientWidth - box.clientWidth) > 4) window.dispatchEvent(new Event("resize"));
    if (tries) setTimeout(() => fit(figure, tries - 1), AGAIN);
  };
  const look = () => {
    const drawn = el.closest(".widget-vbox")?.querySelector(".main-svg");
    if (drawn && drawn !== fitted) {
      fitted = drawn;
      requestAnimationFrame(() => fit(drawn, 20));
      model.set("drawn", model.get("drawn") + 1);
      model.save_changes();
    }
  };
  const changes = new MutationObserver(look);
  requestAnimationFrame(() => {
    changes.observe(el.closest(".widget-vbox") ?? el, { childList: true, subtree: true });
    look();
  });
  return () => changes.disconnect();
} }
