// Columns sort by a click on their head; names of images that are shown open them.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const rows = [...body.rows];
      const numeric = typeof value(rows[0], column) === "number";
      // Of numbers the largest first, of text from A on; once more turns it round.
      const first = numeric ? "descending" : "ascending";
      const other = numeric ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        return sign * (numeric ? x - y : x.localeCompare(y, "en", { numeric: true }));
      });
      body.append(...rows);
    });
  });
  for (const row of body.rows) {
    const name = row.cells[0].textContent.trim();
    if (!Object.hasOwn(payload.pictures, name)) continue;
    const button = element("button", { type: "button", textContent: name });
    button.addEventListener("click", () => openPicture(name));
    row.cells[0].replaceChildren(button);
  }
}
