// Leaves what is as in force out of the address, and marks what was changed before it is sent.
const form = document.getElementById("what-if");

form.addEventListener("formdata", (event) => {
  for (const field of form.querySelectorAll("[data-here]")) {
    if (field.value.trim() === field.dataset.here) event.formData.delete(field.name);
  }
  for (const name of ["patient", "service"]) {
    if (!event.formData.get(name)) event.formData.delete(name);
  }
});

form.addEventListener("input", (event) => {
  const field = event.target;
  if (field.dataset.here !== undefined) {
    field.closest("li").classList.toggle("changed", field.value.trim() !== field.dataset.here);
  }
});
