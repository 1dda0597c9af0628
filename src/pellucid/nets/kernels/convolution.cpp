// Winograd's F(2 x 2, 3 x 3) for float32 maps whose channels lie last in memory; convolution.py tells the
// mathematics.
//
// A map [n, h, w, c] is cut into tiles of 2 x 2 outputs; each reads 4 x 4 inputs, and what lies outside is zero. The 16
// numbers that a tile and a channel become are planes of a matrix product over the channels. Chunks of tiles go through
// all of it while they are in the cache. Every sum has one order, whatever the number of threads, tiles or samples.

#include <omp.h>

#include <algorithm>

#include "vectors.h"

namespace {

constexpr long WIDE = 2 * LANES, ROWS = LANES / 2;  // a block of a matrix product: the registers hold its sums
constexpr long CHUNK = 256;                         // tiles of which a gradient is summed before it joins the others

struct Map {
  long n, h, w, c;
  long tiles() const { return n * ((h + 1) / 2) * ((w + 1) / 2); }
};

// Where a tile lies in its map: pixel (y, x) is the first of its outputs.
struct Tile {
  long image, y, x;
  Tile(const Map& map, long tile) {
    long across = (map.w + 1) / 2, down = (map.h + 1) / 2;
    image = tile / across / down, y = 2 * (tile / across % down), x = 2 * (tile % across);
  }
  // The channels of the pixel (i, j) away, or of `outside`.
  template <typename Float>
  Float* at(const Map& map, Float* values, long i, long j, Float* outside) const {
    bool in = y + i >= 0 && y + i < map.h && x + j >= 0 && x + j < map.w;
    return in ? values + ((image * map.h + y + i) * map.w + x + j) * map.c : outside;
  }
};

// B^T d B, for a vector of channels; d is 4 x 4. Result i is stored at to[i * plane].
INLINE void spread(const float* const* d, long channel, float* to, long plane) {
  Vector e[4][4];
  for (int j = 0; j < 4; j++) {
    Vector d0 = load(d[j] + channel), d1 = load(d[4 + j] + channel);
    Vector d2 = load(d[8 + j] + channel), d3 = load(d[12 + j] + channel);
    e[0][j] = d0 - d2, e[1][j] = d1 + d2, e[2][j] = d2 - d1, e[3][j] = d1 - d3;
  }
  for (int i = 0; i < 4; i++, to += 4 * plane) {
    store(to, e[i][0] - e[i][2]);
    store(to + plane, e[i][1] + e[i][2]);
    store(to + 2 * plane, e[i][2] - e[i][1]);
    store(to + 3 * plane, e[i][1] - e[i][3]);
  }
}

// A^T m A + bias, for a vector of channels; m is 4 x 4, y is 2 x 2.
INLINE void gather(const float* m, long plane, Vector bias, float* const* y, long channel) {
  Vector e[2][4];
  for (int j = 0; j < 4; j++, m += plane) {
    Vector m1 = load(m + 4 * plane), m2 = load(m + 8 * plane);
    e[0][j] = load(m) + m1 + m2, e[1][j] = m1 - m2 - load(m + 12 * plane);
  }
  for (int i = 0; i < 2; i++) {
    store(y[2 * i] + channel, e[i][0] + e[i][1] + e[i][2] + bias);
    store(y[2 * i + 1] + channel, e[i][1] - e[i][2] - e[i][3] + bias);
  }
}

// A g A^T, for a vector of channels; g is 2 x 2: the transpose of `gather`.
INLINE void scatter(const float* const* g, long channel, float* to, long plane) {
  Vector e[4][2];
  for (int j = 0; j < 2; j++) {
    Vector g0 = load(g[j] + channel), g1 = load(g[2 + j] + channel);
    e[0][j] = g0, e[1][j] = g0 + g1, e[2][j] = g0 - g1, e[3][j] = -g1;
  }
  for (int i = 0; i < 4; i++, to += 4 * plane) {
    store(to, e[i][0]);
    store(to + plane, e[i][0] + e[i][1]);
    store(to + 2 * plane, e[i][0] - e[i][1]);
    store(to + 3 * plane, -e[i][1]);
  }
}

// A block of a matrix product, ROWS x WIDE: c = [c +] a b. Entry (r, k) of a is a[r * row + k * step].
template <bool JOIN>
INLINE void product(long depth, const float* a, long row, long step, const float* b, float* c) {
  Vector sum[ROWS][2] = {};
  for (long k = 0; k < depth; k++, a += step, b += WIDE) {
    Vector left = load(b), right = load(b + LANES);
    for (int r = 0; r < ROWS; r++) sum[r][0] += a[r * row] * left, sum[r][1] += a[r * row] * right;
  }
  for (int r = 0; r < ROWS; r++, c += WIDE) {
    store(c, JOIN ? load(c) + sum[r][0] : sum[r][0]);
    store(c + LANES, JOIN ? load(c + LANES) + sum[r][1] : sum[r][1]);
  }
}

// u [out / WIDE][16][in][WIDE] = G w G^T of w [out][3][3][in]; or of its transpose, turned about: w [in][3][3][out].
void weigh(const float* w, float* u, long in, long out, bool turned, int threads) {
  long plane = in * WIDE, line = turned ? out : in;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long block = 0; block < in / LANES; block++) {
    float taps[9][LANES][WIDE];  // [in][out]
    for (long o = 0; o < out; o += WIDE) {
      long first = turned ? block * LANES : o, count = turned ? LANES : WIDE;
      for (long r = 0; r < count; r++)
        for (int tap = 0; tap < 9; tap++) {
          const float* from = w + ((first + r) * 9 + tap) * line + (turned ? o : block * LANES);
          if (turned)
            for (long k = 0; k < WIDE; k++) taps[8 - tap][r][k] = from[k];
          else
            for (long k = 0; k < LANES; k++) taps[tap][k][r] = from[k];
        }
      for (long i = 0; i < LANES; i++)
        for (long half = 0; half < WIDE; half += LANES) {
          float* to = u + o / WIDE * 16 * plane + (block * LANES + i) * WIDE + half;
          Vector e[4][3];
          for (int j = 0; j < 3; j++) {
            Vector g0 = load(&taps[j][i][half]), g1 = load(&taps[3 + j][i][half]), g2 = load(&taps[6 + j][i][half]);
            e[0][j] = g0, e[1][j] = (g0 + g1 + g2) * 0.5f, e[2][j] = (g0 - g1 + g2) * 0.5f, e[3][j] = g2;
          }
          for (int k = 0; k < 4; k++, to += 4 * plane) {
            store(to, e[k][0]);
            store(to + plane, (e[k][0] + e[k][1] + e[k][2]) * 0.5f);
            store(to + 2 * plane, (e[k][0] - e[k][1] + e[k][2]) * 0.5f);
            store(to + 3 * plane, e[k][2]);
          }
        }
    }
  }
}

// Tiles that a thread takes through a convolution at once, and the working memory, in floats, of each thread.
long chunk(long in) { return std::clamp(ROWS * (4096 / in), ROWS, 6 * ROWS); }
long share(long in) { return in + 16 * chunk(in) * (in + WIDE) + WIDE; }

}  // namespace

// The working memory, in floats, of pellucid_convolve.
extern "C" long pellucid_convolve_memory(long in, long out, int threads) { return 16 * in * out + threads * share(in); }

// y [n, h, w, out] = x [n, h, w, in] with w [out][3][3][in], or `turned` with w [in][3][3][out], plus bias [out].
extern "C" void pellucid_convolve(const float* x, const float* weight, const float* bias, float* y, float* memory,
                                  long n, long h, long w, long in, long out, long turned, int threads) {
  float* u = memory;
  memory += 16 * in * out;
  weigh(weight, u, in, out, turned, threads);
  Map from{n, h, w, in}, to{n, h, w, out};
  long tiles = from.tiles(), most = chunk(in);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (long begin = 0; begin < tiles; begin += most) {
    long count = std::min(most, tiles - begin);
    float *zeros = memory + omp_get_thread_num() * share(in), *v = zeros + in, *m = v + 16 * most * in;
    float* nowhere = m + 16 * most * WIDE;
    std::fill(zeros, v, 0.f);
    for (long t = 0; t < count; t++) {
      Tile tile(from, begin + t);
      const float *d[16], *outside = zeros;
      for (int i = 0; i < 16; i++) d[i] = tile.at(from, x, i / 4 - 1, i % 4 - 1, outside);
      for (long c = 0; c < in; c += LANES) spread(d, c, v + t * in + c, most * in);
    }
    for (long o = 0; o < out; o += WIDE) {
      for (long plane = 0; plane < 16; plane++)
        for (long r = 0; r < count; r += ROWS)
          product<false>(in, v + (plane * most + r) * in, in, 1, u + (o / WIDE * 16 + plane) * in * WIDE,
                         m + (plane * most + r) * WIDE);
      for (long t = 0; t < count; t++) {
        Tile tile(to, begin + t);
        float* q[4];
        for (int i = 0; i < 4; i++) q[i] = tile.at(to, y + o, i / 2, i % 2, nowhere);
        for (long half = 0; half < WIDE; half += LANES)
          gather(m + t * WIDE + half, most * WIDE, load(bias + o + half), q, half);
      }
    }
  }
}

// The working memory, in floats, of pellucid_gradient.
extern "C" long pellucid_gradient_memory(long in, long out, int) {
  return std::max(in, out) + 16 * CHUNK * (in + out) + 16 * in * out;
}

// dw [out][3][3][in] = G^T (sum over tiles of (B^T x B) * (A g A^T)) G,  of x [n, h, w, in] and g [n, h, w, out].
extern "C" void pellucid_gradient(const float* x, const float* g, float* dw, float* memory, long n, long h, long w,
                                  long in, long out, int threads) {
  Map xs{n, h, w, in}, gs{n, h, w, out};
  long tiles = xs.tiles(), across = out / WIDE;
  float *zeros = memory, *v = zeros + std::max(in, out), *m = v + 16 * CHUNK * in, *du = m + 16 * CHUNK * out;
  std::fill(zeros, v, 0.f);
#pragma omp parallel num_threads(threads)
  {
    for (long begin = 0; begin < tiles; begin += CHUNK) {
      long count = std::min(CHUNK, tiles - begin);
#pragma omp for schedule(static)
      for (long t = 0; t < count; t++) {
        Tile tile(xs, begin + t);
        const float *d[16], *e[4], *outside = zeros;
        for (int i = 0; i < 16; i++) d[i] = tile.at(xs, x, i / 4 - 1, i % 4 - 1, outside);
        for (int i = 0; i < 4; i++) e[i] = tile.at(gs, g, i / 2, i % 2, outside);
        for (long c = 0; c < in; c += LANES) spread(d, c, v + (c / LANES * CHUNK + t) * LANES, CHUNK * in);
        for (long c = 0; c < out; c += LANES)
          scatter(e, c, m + (c / WIDE * CHUNK + t) * WIDE + c % WIDE, CHUNK * out);
      }
#pragma omp for schedule(static)
      for (long block = 0; block < 16 * across; block++) {  // du [16][out / WIDE][in][WIDE]
        const float *b = m + block * CHUNK * WIDE, *a = v + block / across * CHUNK * in;
        for (long c = 0; c < in; c += ROWS) {
          const float* rows = a + c / LANES * CHUNK * LANES + c % LANES;
          float* sum = du + (block * in + c) * WIDE;
          begin ? product<true>(count, rows, 1, LANES, b, sum) : product<false>(count, rows, 1, LANES, b, sum);
        }
      }
    }
#pragma omp for schedule(static)
    for (long o = 0; o < out; o++) {
      for (long c = 0; c < in; c++) {
        float q[4][4], e[3][4];
        for (int i = 0; i < 16; i++) q[i / 4][i % 4] = du[((i * across + o / WIDE) * in + c) * WIDE + o % WIDE];
        for (int j = 0; j < 4; j++) {
          float half = (q[1][j] + q[2][j]) * 0.5f;
          e[0][j] = q[0][j] + half, e[1][j] = (q[1][j] - q[2][j]) * 0.5f, e[2][j] = half + q[3][j];
        }
        for (int i = 0; i < 3; i++) {
          float *to = dw + (o * 9 + 3 * i) * in + c, half = (e[i][1] + e[i][2]) * 0.5f;
          to[0] = e[i][0] + half, to[in] = (e[i][1] - e[i][2]) * 0.5f, to[2 * in] = half + e[i][3];
        }
      }
    }
  }
}
