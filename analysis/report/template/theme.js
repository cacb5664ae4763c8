"use strict";
// Light or dark: what was chosen on this page or when it was made, else what was stored, else what the system prefers. Before anything is drawn.

const DARK = matchMedia("(prefers-color-scheme: dark)");
const STORED = "lmc-tune-theme";

// A browser may keep nothing of a page that is a file.
function storedTheme() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null;
  }
}

function currentTheme() {
  const { theme, asked } = document.documentElement.dataset;
  return theme || asked || storedTheme() || (DARK.matches ? "dark" : "light");
}

function storeTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(STORED, theme);
  } catch {
    // It holds until the page is closed.
  }
}

document.documentElement.dataset.theme = currentTheme();
