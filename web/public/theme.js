// Runs before the first paint, so that a chosen theme does not flash. The rest is in src/lib/theme.svelte.ts.
try {
  const theme = localStorage.getItem('chatwheel.theme')
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme
} catch {
  // Storage may be off; then the system's theme it is.
}
