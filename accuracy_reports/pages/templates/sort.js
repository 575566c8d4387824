"use strict";
// A click on a column's title sorts by it; a second one the other way round. Empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const said = document.getElementById(table.dataset.status);
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = head.dataset.first || "descending";
      const other = first === "descending" ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.value;
      const compare = (left, right) => {
        const [a, b] = [value(left), value(right)];
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (head.classList.contains("text") ? a.localeCompare(b, "en", {numeric: true}) : a - b);
      };
      body.append(...[...body.rows].sort(compare));
      heads.forEach((item) => item.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      if (said) said.textContent = "sorted by " + head.textContent.trim() + ", " + order;
    });
  });
}
