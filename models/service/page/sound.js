// Sounds in the browser: decoding, spectrograms, players, and recordings as WAV.

import { element } from "./view.js";

const WINDOW = 1024; // samples
const RANGE_DB = 80; // from black to the brightest

let context;

export function decode(blob) {
  context ??= new AudioContext();
  return blob.arrayBuffer().then((bytes) => context.decodeAudioData(bytes));
}

/** Return a player with a spectrogram, which stays away where the browser cannot decode the sound. */
export function player(blob, name, from_s, to_s) {
  const audio = element("audio", { controls: true, src: URL.createObjectURL(blob), "aria-label": `Play ${name}` });
  const canvas = element("canvas", { width: 800, height: 128, role: "img", "aria-label": `Spectrogram of ${name}` });
  const box = element("div", { class: "player" }, canvas, audio);
  if (from_s) audio.addEventListener("loadedmetadata", () => (audio.currentTime = from_s), { once: true });
  box.audio = audio;
  box.decoded = decode(blob)
    .then((buffer) => {
      draw(canvas, buffer, from_s ?? 0, to_s ?? buffer.duration);
      canvas.setAttribute("aria-label", `Spectrogram of ${name}, ${buffer.duration.toFixed(1)} s`);
      return buffer;
    })
    .catch(() => canvas.replaceWith(element("p", { class: "quiet" }, "This browser cannot play the format.")));
  return box;
}

function draw(canvas, buffer, from_s, to_s) {
  const samples = buffer.getChannelData(0);
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(canvas.width, canvas.height);
  const first = from_s * buffer.sampleRate;
  const hop = ((to_s - from_s) * buffer.sampleRate) / canvas.width;
  const columns = Array.from({ length: canvas.width }, (_, x) => powers(samples, Math.round(first + x * hop)));
  const loudest = columns.reduce((most, column) => column.reduce((a, b) => Math.max(a, b), most), 1e-12);
  const heard = (column) => column.findLastIndex((power) => power > loudest * 10 ** (-RANGE_DB / 10));
  const bins = Math.max(...columns.map(heard), 1) + 1; // browsers resample: above what was recorded there is nothing
  const [width, top] = [buffer.sampleRate / WINDOW, (bins * buffer.sampleRate) / WINDOW];
  columns.forEach((column, x) => {
    for (let y = 0; y < canvas.height; y++) {
      const bin = Math.floor(hertz((1 - (y + 1) / canvas.height) * mel(top)) / width);
      const level = Math.max(0, 1 + (10 * Math.log10(column[bin] / loudest + 1e-12)) / RANGE_DB);
      image.data.set(colour(level), 4 * (y * canvas.width + x));
    }
  });
  pen.putImageData(image, 0, 0);
}

// The axis is that of the mel scale, on which what sounds evenly spaced is.
const mel = (frequency) => 2595 * Math.log10(1 + frequency / 700);
const hertz = (mels) => 700 * (10 ** (mels / 2595) - 1);

/** Black, blue, red, yellow, white. */
function colour(level) {
  const ramp = (low, high) => Math.round(255 * Math.min(1, Math.max(0, (level - low) / (high - low))));
  return [ramp(0.25, 0.65), ramp(0.5, 0.9), level < 0.5 ? ramp(0, 0.5) * 0.7 : ramp(0.75, 1), 255];
}

/** Return the power of each frequency in a Hann window around a sample. */
function powers(samples, centre) {
  const real = new Float32Array(WINDOW);
  const imaginary = new Float32Array(WINDOW);
  for (let n = 0; n < WINDOW; n++) {
    const hann = 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / WINDOW);
    real[n] = hann * (samples[centre - WINDOW / 2 + n] ?? 0);
  }
  transform(real, imaginary);
  return Array.from({ length: WINDOW / 2 }, (_, k) => real[k] ** 2 + imaginary[k] ** 2);
}

/** The fast Fourier transform of a power of two numbers, in place (Cooley and Tukey). */
function transform(real, imaginary) {
  const size = real.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j]] = [real[j], real[i]]; // the imaginary parts are all 0
  }
  for (let length = 2; length <= size; length *= 2) {
    for (let start = 0; start < size; start += length) {
      for (let k = 0; k < length / 2; k++) {
        const angle = (-2 * Math.PI * k) / length;
        const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
        const [a, b] = [start + k, start + k + length / 2];
        const [re, im] = [real[b] * cos - imaginary[b] * sin, real[b] * sin + imaginary[b] * cos];
        [real[b], imaginary[b]] = [real[a] - re, imaginary[a] - im];
        [real[a], imaginary[a]] = [real[a] + re, imaginary[a] + im];
      }
    }
  }
}

/** Return decoded sound as a 16-bit WAV file of one channel, which every service reads. */
export function wav(buffer) {
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c));
  const view = new DataView(new ArrayBuffer(44 + 2 * buffer.length));
  const text = (at, letters) => [...letters].forEach((letter, n) => view.setUint8(at + n, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * buffer.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, buffer.sampleRate, true);
  view.setUint32(28, 2 * buffer.sampleRate, true); // bytes a second
  view.setUint16(32, 2, true); // bytes a frame
  view.setUint16(34, 16, true); // bits a sample
  text(36, "data");
  view.setUint32(40, 2 * buffer.length, true);
  for (let n = 0; n < buffer.length; n++) {
    const mean = channels.reduce((sum, channel) => sum + channel[n], 0) / channels.length;
    view.setInt16(44 + 2 * n, Math.max(-32768, Math.min(32767, Math.round(mean * 32768))), true);
  }
  return new Blob([view], { type: "audio/wav" });
}

/** Record the microphone until `stop()`; `recorded` is then the WAV file. */
export async function record() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("This browser records only over HTTPS, or from localhost.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    const none = error.name === "NotFoundError" ? "There is no microphone." : "The microphone may not be used.";
    throw new Error(`${none} Choose a file instead.`);
  }
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
  const ended = new Promise((resolve) => recorder.addEventListener("stop", resolve));
  recorder.start();
  return {
    stop: () => recorder.stop(),
    recorded: ended.then(async () => {
      stream.getTracks().forEach((track) => track.stop());
      return wav(await decode(new Blob(pieces, { type: recorder.mimeType })));
    }),
  };
}
