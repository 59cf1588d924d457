// A button and a place to drop a picture: see PictureUpload in widgets.py.
let count = 0;

function render({ model, el }) {
  el.classList.add("fieldmarks");
  const box = document.createElement("div");
  box.className = "fieldmarks-upload";
  const label = document.createElement("label");
  const input = document.createElement("input");
  input.type = "file";
  input.accept = "image/*,.heic,.heif,.avif,.jp2,.jfif"; // not all systems know these for images
  input.id = `fieldmarks-upload-${++count}`;
  label.htmlFor = input.id;
  label.textContent = model.get("label");
  box.append(label, input);
  el.append(box);

  async function send(file) {
    if (!file) return;
    if (file.size > model.get("limit")) model.send({ name: file.name, size: file.size });
    else model.send({ name: file.name, size: file.size }, undefined, [await file.arrayBuffer()]);
  }

  input.addEventListener("change", async () => {
    await send(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    box.addEventListener(kind, (event) => {
      event.preventDefault();
      event.stopPropagation();
      box.classList.toggle("over", kind === "dragover");
      if (kind === "drop") send(event.dataTransfer.files[0]);
    });
  }
}

export default { render };
