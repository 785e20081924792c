// What is nicer with a script; without it the page is whole.
for (const each of document.querySelectorAll(".scripted")) {
  each.hidden = false;
}

// A link to a resource opens it, and the one in it leads back to where one came from.
for (const link of document.querySelectorAll('a[href^="#resource-"]')) {
  link.addEventListener("click", () => {
    const place = document.getElementById(link.hash.slice(1));
    const resource = place.closest("details");
    resource.open = true;
    place.focus();
    resource.querySelector(".back").onclick = (event) => {
      event.preventDefault();
      link.focus();
    };
  });
}

// On paper the reasons of what fired are open, and the request is there as a whole.
const printed = document.querySelectorAll('.topic[data-verdict="fired"], #again details');
const closed = new Set();
addEventListener("beforeprint", () => {
  for (const each of printed) {
    if (!each.open) closed.add(each);
    each.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const each of closed) each.open = false;
  closed.clear();
});

for (const button of document.querySelectorAll("[data-copies]")) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copies).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied: the text is below";
    }
    setTimeout(() => { button.textContent = label; }, 3000);
  });
}

// A card is set aside with a reason; whoever does something else need not choose one.
const reasons = document.querySelectorAll(".override select");
for (const button of document.querySelectorAll('button[form="again"], #again button')) {
  button.addEventListener("click", () => {
    for (const reason of reasons) {
      reason.required = reason.closest(".override") === button.closest(".override");
    }
  });
}

// A file that is dropped on the form is as good as one that is chosen, and fires at once.
const own = document.getElementById("own");
const file = document.getElementById("file");
const over = (is) => own.classList.toggle("over", is);
own.addEventListener("dragover", (event) => {
  event.preventDefault();
  over(true);
});
own.addEventListener("dragleave", () => over(false));
own.addEventListener("drop", (event) => {
  over(false);
  if (event.dataTransfer.files.length > 0) {
    event.preventDefault();
    document.getElementById("pasted").value = "";
    file.files = event.dataTransfer.files;
    own.requestSubmit();
  }
});
