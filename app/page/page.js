// Tooltips of an answer's words: by pointer, by touch and by keyboard.
(() => {
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;

  const line = (label, text) => {
    if (!text) return;
    const row = tip.appendChild(document.createElement("p"));
    if (label) row.appendChild(document.createElement("b")).textContent = label;
    row.append((label && " ") + text); // as text: nothing of it is ever markup
  };

  const show = (token) => {
    if (!tip.isConnected) document.body.append(tip);
    tip.replaceChildren();
    const word = token.matches(".token");
    line(word ? "“" + token.textContent + "”" : "", token.dataset.told);
    if (token.dataset.gain) line("confidence gain", token.dataset.gain + " nats");
    if (token.dataset.passages) line("the passages would say", token.dataset.passages);
    if (token.dataset.memory) line("memory would say", token.dataset.memory);
    tip.hidden = false;
    token.setAttribute("aria-describedby", "tip");
    const at = token.getBoundingClientRect();
    const left = Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = at.top - tip.offsetHeight - 8;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = (above > 8 ? above : at.bottom + 8) + "px";
  };

  const hide = () => {
    tip.hidden = true;
    document.querySelectorAll("[aria-describedby=tip]").forEach((token) => {
      token.removeAttribute("aria-describedby");
    });
  };

  // The sentence under the pointer or the focus lights up, with the passages that support it.
  const light = (sentence) => {
    document.querySelectorAll(".lit").forEach((lit) => lit.classList.remove("lit"));
    if (!sentence) return;
    const { sentence: number, cites } = sentence.dataset;
    const same = `.sentence[data-sentence="${number}"]`;
    const passages = cites.split(" ").map((id) => document.getElementById(id));
    for (const each of [...sentence.closest(".said").querySelectorAll(same), ...passages]) {
      each?.classList.add("lit");
    }
  };

  const told = (event) => event.target.closest?.("[data-told]");
  const onto = (event) => {
    hide();
    light(event.target.closest?.(".sentence"));
    if (told(event)) show(told(event));
  };
  // A resting pointer over which the page scrolls moves onto nothing.
  let rests = "";
  const place = (event) => `${event.clientX} ${event.clientY}`;
  document.addEventListener("pointermove", (event) => { rests = place(event); });
  document.addEventListener("pointerover", (event) => {
    if (place(event) !== rests) onto(event);
  });
  document.addEventListener("focusin", onto);
  document.addEventListener("click", onto);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", () => {
    const word = document.querySelector("[aria-describedby=tip]");
    hide();
    if (word?.matches(":hover, :focus")) show(word);
  }, true);

  // One stop of the Tab key for a whole answer; the arrows go from word to word.
  const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const token = event.target.closest?.(".token[data-told]");
    if (!token || !(event.key in steps)) return;
    event.preventDefault();
    const all = [...token.closest(".said").querySelectorAll(".token[data-told]")];
    const next = all[Math.max(0, Math.min(all.length - 1, all.indexOf(token) + steps[event.key]))];
    token.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });

  // Once there is a body; this script may come before it or after.
  const drawn = (act) => {
    if (document.body) act();
    else document.addEventListener("DOMContentLoaded", act);
  };

  // It shows at once that it works, before the server has said a word.
  const works = (on) => document.body.classList.toggle("works", on);
  const asks = "#question .submit-button, button[data-action=ask], button[data-action=again], " +
    "button[data-action=edit]";
  const full = () => document.querySelector("#question textarea")?.value.trim();
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(asks);
    if (button && (!button.matches(".submit-button") || full())) works(true);
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    if (event.target.closest("#question") && full()) works(true);
    if (!event.target.closest(".actions textarea")) return;
    event.preventDefault();
    event.target.parentElement.querySelector("button").click();
  }, true);

  // A new question, or the latest of a conversation that comes back, is moved to the top, where its answer will be read.
  history.scrollRestoration = "manual";
  const follow = new MutationObserver(() => {
    if (document.querySelector("#latest .turn[aria-busy=true], .toast-body")) works(false);
    const turn = document.querySelector("#latest .turn");
    const before = document.querySelectorAll("#earlier .turn").length;
    const asked = before + turn?.id + turn?.querySelector("h2").textContent;
    if (!turn || asked === follow.asked) return;
    follow.asked = asked;
    turn.scrollIntoView({ block: "start", behavior: "smooth" });
  });
  drawn(() => follow.observe(document.body, { childList: true, subtree: true }));

  // A file that the server has made is saved.
  const saved = new MutationObserver(() => {
    const made = document.querySelector("#file [data-file]");
    if (!made) return;
    const link = document.createElement("a");
    link.download = made.dataset.file;
    link.href = URL.createObjectURL(new Blob([made.textContent], { type: "text/plain" }));
    made.remove();
    link.click();
    URL.revokeObjectURL(link.href);
  });
  drawn(() => saved.observe(document.body, { childList: true, subtree: true }));

  // Only a page from a safe place has the clipboard; others copy what is selected.
  const copy = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const box = document.body.appendChild(document.createElement("textarea"));
    box.value = text;
    box.select();
    document.execCommand("copy");
    box.remove();
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button[data-copy]");
    if (!button) return;
    await copy(button.dataset.copy);
    button.textContent = "Copied";
  });

  // gradio shows no label of this box, and gives it none for who cannot see the hint in it.
  const named = new MutationObserver(() => {
    const box = document.querySelector("#question textarea:not([aria-label])");
    box?.setAttribute("aria-label", "Question");
  });
  drawn(() => named.observe(document.body, { childList: true, subtree: true }));

  // Whoever has a keyboard may type at once; on a phone one would only see the keyboard. The page
  // is drawn in several steps, and each may take the focus away again.
  const ready = new MutationObserver(() => {
    const box = document.querySelector("#question textarea");
    if (box && document.activeElement === document.body) box.focus({ preventScroll: true });
  });
  drawn(() => {
    if (!matchMedia("(hover: hover)").matches) return;
    ready.observe(document.body, { childList: true, subtree: true });
    for (const act of ["keydown", "pointerdown"]) {
      document.addEventListener(act, () => ready.disconnect(), { once: true, capture: true });
    }
  });

  // A citation leads to its passage, unfolded.
  document.addEventListener("click", (event) => {
    const cite = event.target.closest?.("a.cite");
    if (!cite) return;
    event.preventDefault();
    const passage = document.getElementById(cite.getAttribute("href").slice(1));
    passage.closest("details").open = true;
    passage.scrollIntoView({ block: "center", behavior: "smooth" });
    passage.tabIndex = -1;
    passage.focus({ preventScroll: true });
  });
})();
