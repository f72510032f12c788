// plotly may draw before its box has a width, and then takes 700 px: once drawn, it is told to
// measure again
export default { render({ el }) {
  const fit = () => requestAnimationFrame(() => window.dispatchEvent(new Event("resize")));
  const look = () => el.closest(".widget-vbox")?.querySelector(".main-svg")
    && (drawn.disconnect(), fit());
  const drawn = new MutationObserver(look);
  requestAnimationFrame(() => {
    drawn.observe(el.closest(".widget-vbox") ?? el, { childList: true, subtree: true });
    look();
  });
  return () => drawn.disconnect();
} }
