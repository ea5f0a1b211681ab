import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

// Relative addresses, so that the page also works below a path of a larger site.
export default defineConfig({
  base: './',
  plugins: [svelte()],
  build: {
    outDir: '../src/chatwheel/server/static',
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
  },
  server: { proxy: { '/api': 'http://127.0.0.1:8000', '/v1': 'http://127.0.0.1:8000', '/report': 'http://127.0.0.1:8000' } },
})
