// Requests to the server that gave this page. One that changes anything carries a header that other pages cannot set.

export class Refused extends Error {
  constructor(message, status, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Refused("the server does not answer; is pairx review still running?", 0, null);
  }
  if (response.ok) return response.json();
  const text = await response.text();
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    body = null;
  }
  const words = body && typeof body.message === "string" ? body.message : text.trim();
  throw new Refused(words || `the server answered ${response.status}`, response.status, body);
}

export const get = (path, values = {}) => {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) for (const one of [value].flat()) query.append(name, one);
  const text = query.toString();
  return answer(fetch(text ? `${path}?${text}` : path, { credentials: "same-origin" }));
};

export const post = (path, body = {}) =>
  answer(fetch(path, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json", "X-Pairx-Review": "1" },
    body: JSON.stringify(body),
  }));

export const picture = (key, size) => `/pictures/${encodeURIComponent(key)}/${size}.jpg`;
