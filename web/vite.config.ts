import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "./",
  build: {
    // Beside the Python that serves it, so that it travels in the wheel.
    outDir: "../chain/explorer/page",
    emptyOutDir: true,
    assetsDir: ".",
    target: "es2022",
    modulePreload: { polyfill: false },
  },
  test: { include: ["tests/**/*.test.ts"], environment: "node", testTimeout: 300_000, hookTimeout: 60_000 },
});
