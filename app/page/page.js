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
  document.addEventListener("pointerover", onto);
  document.addEventListener("focusin", onto);
  document.addEventListener("click", onto);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, true);

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

  // A new question comes to the top of the view, where its answer will be read.
  const follow = new MutationObserver(() => {
    const turn = document.querySelector("#latest .turn");
    const asked = turn?.id + turn?.querySelector("h2").textContent;
    if (!turn || asked === follow.asked) return;
    follow.asked = asked;
    turn.scrollIntoView({ block: "start", behavior: "smooth" });
  });
  drawn(() => follow.observe(document.body, { childList: true, subtree: true }));

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
