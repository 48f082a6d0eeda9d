(selector) => {
  const found = [...document.querySelectorAll(selector)];
  if (found.length !== 1) return `there are ${found.length} of it`;
  const [element] = found;
  if (element.disabled) return "it is disabled";
  element.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
  const box = element.getBoundingClientRect();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  const hit = document.elementFromPoint(x, y);
  if (!hit || !element.contains(hit)) return `over it lies ${hit?.outerHTML.slice(0, 200)}`;
  return { x, y };
}
