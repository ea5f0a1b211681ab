import { mount } from 'svelte'
import './app.css'
import App from './App.svelte'

const target = document.getElementById('app')
// A link that shows a conversation to whoever has it: nothing of the page around it is needed, nor who it is.
const sharedBy = (): string | null => /^#\/s\/([\w-]+)$/.exec(location.hash)?.[1] ?? null
const token = sharedBy()
addEventListener('hashchange', () => sharedBy() !== token && (token || sharedBy()) && location.reload())

if (target && token) void import('./components/chat/Shared.svelte').then((module) => mount(module.default, { target, props: { token } }))
else if (target) mount(App, { target })
