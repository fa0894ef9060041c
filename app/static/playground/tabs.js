// Tabs as the ARIA Authoring Practices describe them: one stop of the tab key, arrows between them.

export function tabs(list, chosen) {
  const all = [...list.querySelectorAll('[role="tab"]')];
  const choose = (tab) => {
    for (const other of all) {
      other.setAttribute("aria-selected", String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
    }
    chosen(tab);
  };
  const keys = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest('[role="tab"]');
    if (tab !== null) choose(tab);
  });
  list.addEventListener("keydown", (event) => {
    const step = keys[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const place = Number.isFinite(step)
      ? (all.indexOf(event.target) + step + all.length) % all.length
      : step < 0 ? 0 : all.length - 1;
    all[place].focus();
    choose(all[place]);
  });
}
