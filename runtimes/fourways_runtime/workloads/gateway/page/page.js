"use strict";

const KEY = "fourways-key";

function headers(more) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

// A page that was opened without credentials is fetched again with the key of this tab.
async function show(address, push) {
  const answer = await fetch(address, { headers: headers({ Accept: "text/html" }) });
  const found = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.title = found.title;
  document.querySelector("main").replaceWith(document.adoptNode(found.querySelector("main")));
  if (push) history.pushState(null, "", address);
  document.querySelector("main").focus();
  start();
}

function followKey() {
  const form = document.getElementById("key-form");
  if (form) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, form.elements.key.value.trim());
      show(location.href, false);
    });
  }
  if (!sessionStorage.getItem(KEY)) return;
  for (const link of document.querySelectorAll('a[href="/"], a[href^="/deployments/"]')) {
    if (link.dataset.follows) continue;
    link.dataset.follows = "yes";
    link.addEventListener("click", (event) => {
      event.preventDefault();
      show(link.href, true);
    });
  }
}

function valueOf(field) {
  const text = field.value.trim();
  if (text === "") return undefined;
  const kind = field.dataset.kind.replace("nullable ", "");
  if (kind === "string") return field.value;
  return JSON.parse(text);
}

function record(form) {
  const made = {};
  for (const field of form.querySelectorAll("[data-name]")) {
    let value;
    try {
      value = valueOf(field);
    } catch {
      throw new Error(`${field.dataset.name}: ${field.value} is not a ${field.dataset.kind}`);
    }
    if (value !== undefined) made[field.dataset.name] = value;
  }
  return made;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// A JSON string is a Python literal too, and so is a number.
const python = (value) => JSON.stringify(value);

function programs(form) {
  let body;
  try {
    body = JSON.stringify({ instances: [record(form)] });
  } catch {
    return;
  }
  const address = location.origin + form.dataset.path;
  const key = sessionStorage.getItem(KEY) ? ' -H "authorization: Bearer $FOURWAYS_API_KEY"' : "";
  document.getElementById("curl").textContent = `curl ${quoted(address)}${key} -d ${quoted(body)}`;
  const name = form.dataset.path.replace("/v1/models/", "").replace(":predict", "");
  const asked = JSON.parse(body).instances[0];
  const entity = asked[form.dataset.key];
  delete asked[form.dataset.key];
  const given = Object.keys(asked).length ? `, json.loads(${python(JSON.stringify(asked))})` : "";
  const keyed = entity === undefined ? "" : `, key=${python(entity)}`;
  document.getElementById("python").textContent =
    `${given ? "import json\n" : ""}from fourways import Client\n` +
    `print(Client("${location.origin}").predict("${name}"${given}${keyed}).outputs)`;
}

async function predict(form) {
  const answer = document.getElementById("answer");
  answer.classList.remove("bad");
  answer.textContent = "…";
  try {
    const body = JSON.stringify({ instances: [record(form)] });
    const sent = { "Content-Type": "application/json" };
    const got = await fetch(form.dataset.path, { method: "POST", headers: headers(sent), body });
    const result = await got.json();
    answer.classList.toggle("bad", !got.ok);
    answer.textContent = got.ok ? JSON.stringify(result.predictions ?? result, null, 2) : result.error;
  } catch (error) {
    answer.classList.add("bad");
    answer.textContent = error.message;
  }
}

function start() {
  followKey();
  const form = document.getElementById("try-form");
  if (!form) return;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    predict(form);
  });
  form.addEventListener("input", () => programs(form));
  programs(form);
}

addEventListener("popstate", () => {
  if (sessionStorage.getItem(KEY)) show(location.href, false);
  else location.reload();
});
start();
if (document.getElementById("key-form") && sessionStorage.getItem(KEY)) show(location.href, false);
