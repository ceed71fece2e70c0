// Prepares the page for textual.js, which connects the terminal when the window is loaded.
"use strict";

// The token was exchanged for a cookie; it must not stay in the history or in a copied address.
history.replaceState(null, "", "/" + location.search.replace(/[?&]token=[^&]*/, "").replace(/^&/, "?"));

const MAX_MESSAGE_CHARACTERS = 500000;
const notice = () => document.querySelector("#notice");

// textual.js ignores why a connection was closed, and sends input of any length and halves of characters, for which the
// server would end the session.
const BrowserWebSocket = window.WebSocket;
window.WebSocket = class extends BrowserWebSocket {
  constructor(url) {
    super(url);
    this.addEventListener("close", (event) => {
      notice().querySelector("p").textContent = event.reason || "The session has ended.";
      const button = notice().querySelector("button");
      button.hidden = false;
      button.focus();
    });
  }

  send(data) {
    if (this.readyState === BrowserWebSocket.OPEN && data.length <= MAX_MESSAGE_CHARACTERS) {
      // Escapes such as \ud83d are halves of characters: JSON.stringify escapes no complete ones.
      super.send(data.replace(/\\(ud[89a-f]..|.)/g, (escape, kind) => (kind.length > 1 ? "\ufffd" : escape)));
    }
  }
};

document.addEventListener("DOMContentLoaded", () => {
  notice().querySelector("button").addEventListener("click", () => location.assign("/"));
  // The terminal measures its cells once, so the font has to be there before; the start follows in any case.
  const start = window.onload;
  window.onload = async (event) => {
    const fonts = ["16px", "bold 16px", "italic 16px"].map((style) => document.fonts.load(`${style} "Roboto Mono"`));
    await Promise.allSettled(fonts);
    start(event);
    document.querySelector(".xterm-helper-textarea").focus();
  };
});
