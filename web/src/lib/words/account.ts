// The words of signing in, of passwords and of sessions.

import { ApiError } from '../api'
import { words } from '../i18n.svelte'

const en = {
  signIn: 'Sign in',
  signInDetail: 'By the name and password that you have on this server.',
  name: 'Name',
  password: 'Password',
  show: 'Show password',
  hide: 'Hide password',
  wait: 'Sign in (wait {seconds} s)',
  useKey: 'Use an API key instead',
  usePassword: 'Use a name and a password instead',
  changeTitle: 'Change your password',
  setTitle: 'Set a password',
  setDetail:
    'From then on this page asks for your name ({name}) and the password, on this machine too, and programs need an API key.',
  temporaryDetail: 'Your password is a temporary one. Choose one of your own.',
  current: 'Current password',
  new: 'New password',
  newHint: 'At least 8 characters. Other places where you are signed in are signed out.',
  change: 'Change',
  set: 'Set',
  sessionsTitle: 'Where you are signed in',
  here: 'here',
  since: 'since {when}',
  seen: 'last seen {when}',
  unknown: 'Unknown browser',
  everywhere: 'Sign out everywhere',
  close: 'Close',
  wrong_password: 'The name or the password is wrong.',
  wrong_current: 'That is not your current password.',
  too_many_attempts: 'Too many wrong passwords. You can try again in {seconds} seconds.',
  password_short: 'A password has at least 8 characters.',
  password_long: 'This password is too long.',
  password_is_name: 'Your name is no password.',
  password_same: 'That is the password that you have; choose another one.',
  no_project: 'You are in no project yet; whoever runs this server can take you in.',
  admin_password_first: 'From the first password on everybody is asked for one: set your own first (at the foot of the sidebar).',
}

const zh: Record<keyof typeof en, string> = {
  signIn: '登录',
  signInDetail: '用你在这台服务器上的用户名和密码。',
  name: '用户名',
  password: '密码',
  show: '显示密码',
  hide: '隐藏密码',
  wait: '登录（请等 {seconds} 秒）',
  useKey: '改用 API 密钥',
  usePassword: '改用用户名和密码',
  changeTitle: '修改密码',
  setTitle: '设置密码',
  setDetail: '此后，这个页面会要求输入用户名（{name}）和密码，在本机上也一样；程序则需要 API 密钥。',
  temporaryDetail: '你的密码是临时的，请换成自己的密码。',
  current: '当前密码',
  new: '新密码',
  newHint: '至少 8 个字符。你在其他地方的登录会退出。',
  change: '修改',
  set: '设置',
  sessionsTitle: '已登录的地方',
  here: '这里',
  since: '登录于 {when}',
  seen: '最近使用 {when}',
  unknown: '未知浏览器',
  everywhere: '在所有地方退出',
  close: '关闭',
  wrong_password: '用户名或密码不正确。',
  wrong_current: '当前密码不正确。',
  too_many_attempts: '密码错误次数太多，请在 {seconds} 秒后再试。',
  password_short: '密码至少要有 8 个字符。',
  password_long: '这个密码太长了。',
  password_is_name: '用户名不能作为密码。',
  password_same: '这就是现在的密码，请换一个。',
  no_project: '你还不在任何项目中，请联系管理员。',
  admin_password_first: '有了第一个密码之后，所有人都要登录：请先设置你自己的密码（在侧栏底部）。',
}

export const a = words(en, zh)
export type Word = keyof typeof en

/** What went wrong, in the page's language where the page knows it. */
export function problemOf(error: ApiError, current = false): string {
  const code = current && error.code === 'wrong_password' ? 'wrong_current' : error.code
  const seconds = String(Math.ceil(error.retryAfter ?? 0))
  return code !== null && code in en ? a(code as Word, { seconds }) : error.message
}

/** Does it; what the server says against it comes in the page's language. */
export async function saying<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    throw new ApiError(problemOf(error, true), error.status, error.code, error.param, error.retryAfter)
  }
}
