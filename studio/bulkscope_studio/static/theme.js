// Before the first paint: the colours that were chosen. A classic script, since modules run after it.
try {
  const { theme } = JSON.parse(localStorage.getItem("bulkscope") ?? "{}") ?? {};
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // The system's colours.
}
