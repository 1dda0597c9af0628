// y = silu(a norm(x) + b) and its gradient, for float32 maps whose channels lie last in memory; norm.py tells the
// mathematics.
//
// An image [pixels, c] is cut into chunks of pixels, whose sums join in one order, whatever the number of threads or
// images. As many images as threads go through all of it at once: each stays in its core's cache.

#include <algorithm>
#include <cmath>

#include "vectors.h"

namespace {

constexpr long PIXELS = 64;  // of a chunk

// exp(x) for x in [-87, 87]: 2^n by its bits, times a polynomial in the rest (Cephes).
INLINE Vector exponential(Vector x) {
  Vector n = (x * 1.44269504f + 12582912.f) - 12582912.f;  // rounded: the sum has no place for fractions
  Vector r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  Integers bits = (__builtin_convertvector(n, Integers) + 127) << 23;
  return (p * r * r + r + 1.f) * (Vector)bits;
}

INLINE Vector sigmoid(Vector z) {
  Vector low = z - z - 87.f, high = z - z + 87.f;  // and not a number stays none
  z = z < low ? low : z;
  z = z > high ? high : z;
  return 1.f / (1.f + exponential(-z));
}

struct Maps {
  long images, pixels, c, groups;
  long chunks() const { return (pixels + PIXELS - 1) / PIXELS; }
  long count(long chunk) const { return std::min(PIXELS, pixels - chunk * PIXELS); }
  long at(long image, long chunk) const { return (image * pixels + chunk * PIXELS) * c; }
  // Working memory of an image: two sums for each chunk, and three lines of coefficients.
  long memory() const { return (2 * chunks() + 3) * c; }
};

// Sums [c] of a chunk, and the squares of what its pixels are away from their mean.
void moments(const float* x, long pixels, long c, float* sums) {
  for (long i = 0; i < c; i += LANES) {
    Vector sum = {}, squares = {};
    for (long p = 0; p < pixels; p++) sum += load(x + p * c + i);
    Vector mean = sum / static_cast<float>(pixels);
    for (long p = 0; p < pixels; p++) {
      Vector away = load(x + p * c + i) - mean;
      squares += away * away;
    }
    store(sums + i, sum), store(sums + c + i, squares);
  }
}

// The mean and 1 / deviation of each group of an image, from the moments of its chunks (Chan et al. 1979).
void join(const Maps& maps, const float* sums, float eps, float* mean, float* scale) {
  long c = maps.c, size = c / maps.groups;
  double all = static_cast<double>(maps.pixels) * size;
  for (long g = 0; g < maps.groups; g++) {
    double total = 0, squares = 0;
    for (long k = 0; k < maps.chunks(); k++)
      for (long i = g * size; i < (g + 1) * size; i++) total += sums[2 * k * c + i];
    for (long k = 0; k < maps.chunks(); k++)
      for (long i = g * size; i < (g + 1) * size; i++) {
        double count = maps.count(k), away = sums[2 * k * c + i] / count - total / all;
        squares += sums[(2 * k + 1) * c + i] + count * away * away;
      }
    mean[g] = total / all, scale[g] = 1 / std::sqrt(squares / all + eps);
  }
}

// dz = dy silu'(z) and its sums, plain and times norm(x), for a chunk. z = k0 x + k1.
void slopes(const float* x, const float* dy, float* dz, long pixels, long c, const float* k, const float* mean,
            const float* scale, long size, float* sums) {
  for (long i = 0; i < c; i += LANES) {
    Vector k0 = load(k + i), k1 = load(k + c + i), sum = {}, times = {}, m, s;
    for (long j = 0; j < LANES; j++) m[j] = mean[(i + j) / size], s[j] = scale[(i + j) / size];
    for (long p = 0; p < pixels; p++) {
      Vector value = load(x + p * c + i), z = value * k0 + k1, sure = sigmoid(z);
      Vector slope = load(dy + p * c + i) * sure * (1.f + z * (1.f - sure));
      sum += slope, times += slope * ((value - m) * s);
      store(dz + p * c + i, slope);
    }
    store(sums + i, sum), store(sums + c + i, times);
  }
}

}  // namespace

extern "C" long pellucid_norm_memory(long pixels, long c, long groups, int threads) {
  return threads * Maps{threads, pixels, c, groups}.memory();
}

// y [n, pixels, c] of x, a and b [n, c]; the means and 1 / deviations [n, groups] are written too.
extern "C" void pellucid_norm(const float* x, const float* a, const float* b, float* y, float* mean, float* scale,
                              float* memory, float eps, long n, long pixels, long c, long groups, int threads) {
  Maps maps{n, pixels, c, groups};
  long chunks = maps.chunks(), share = maps.memory();
#pragma omp parallel num_threads(threads)
  for (long first = 0; first < n; first += threads) {
    long images = std::min<long>(threads, n - first);
#pragma omp for schedule(static)
    for (long task = 0; task < images * chunks; task++) {
      long image = task / chunks, k = task % chunks;
      moments(x + maps.at(first + image, k), maps.count(k), c, memory + image * share + 2 * k * c);
    }
#pragma omp for schedule(static)
    for (long image = 0; image < images; image++) {
      float *own = memory + image * share, *k = own + 2 * chunks * c;
      float *means = mean + (first + image) * groups, *scales = scale + (first + image) * groups;
      join(maps, own, eps, means, scales);
      for (long i = 0; i < c; i++) {
        long g = i / (c / groups), at = (first + image) * c + i;
        k[i] = a[at] * scales[g], k[c + i] = b[at] - means[g] * k[i];
      }
    }
#pragma omp for schedule(static)
    for (long task = 0; task < images * chunks; task++) {
      long image = task / chunks, chunk = task % chunks, at = maps.at(first + image, chunk);
      const float* k = memory + image * share + 2 * chunks * c;
      for (long p = 0; p < maps.count(chunk); p++)
        for (long i = 0; i < c; i += LANES) {
          Vector z = load(x + at + p * c + i) * load(k + i) + load(k + c + i);
          store(y + at + p * c + i, z * sigmoid(z));
        }
    }
  }
}

// dx [n, pixels, c], da and db [n, c] of the same, and of dy [n, pixels, c].
extern "C" void pellucid_norm_gradient(const float* x, const float* dy, const float* a, const float* b,
                                       const float* mean, const float* scale, float* dx, float* da, float* db,
                                       float* memory, long n, long pixels, long c, long groups, int threads) {
  Maps maps{n, pixels, c, groups};
  long chunks = maps.chunks(), share = maps.memory(), size = c / groups;
  double all = static_cast<double>(pixels) * size;
#pragma omp parallel num_threads(threads)
  for (long first = 0; first < n; first += threads) {
    long images = std::min<long>(threads, n - first);
#pragma omp for schedule(static)
    for (long image = 0; image < images; image++) {
      float* k = memory + image * share + 2 * chunks * c;
      for (long i = 0; i < c; i++) {
        long g = (first + image) * groups + i / size, at = (first + image) * c + i;
        k[i] = a[at] * scale[g], k[c + i] = b[at] - mean[g] * k[i];
      }
    }
#pragma omp for schedule(static)
    for (long task = 0; task < images * chunks; task++) {
      long image = task / chunks, chunk = task % chunks, at = maps.at(first + image, chunk);
      float* own = memory + image * share;
      slopes(x + at, dy + at, dx + at, maps.count(chunk), c, own + 2 * chunks * c, mean + (first + image) * groups,
             scale + (first + image) * groups, size, own + 2 * chunk * c);
    }
#pragma omp for schedule(static)
    for (long image = 0; image < images; image++) {  // dx = k0 dz + k1 x + k2
      float *own = memory + image * share, *k = own + 2 * chunks * c;
      for (long g = 0; g < groups; g++) {
        double plain = 0, times = 0, m = mean[(first + image) * groups + g], s = scale[(first + image) * groups + g];
        for (long i = g * size; i < (g + 1) * size; i++) {
          double sum = 0, with = 0;
          for (long chunk = 0; chunk < chunks; chunk++)
            sum += own[2 * chunk * c + i], with += own[(2 * chunk + 1) * c + i];
          long at = (first + image) * c + i;
          db[at] = sum, da[at] = with, plain += a[at] * sum, times += a[at] * with;
        }
        for (long i = g * size; i < (g + 1) * size; i++)
          k[c + i] = -s * s * times / all, k[2 * c + i] = s * (m * s * times - plain) / all;
      }
    }
#pragma omp for schedule(static)
    for (long task = 0; task < images * chunks; task++) {
      long image = task / chunks, chunk = task % chunks, at = maps.at(first + image, chunk);
      const float* k = memory + image * share + 2 * chunks * c;
      for (long p = 0; p < maps.count(chunk); p++)
        for (long i = 0; i < c; i += LANES) {
          float* to = dx + at + p * c + i;
          store(to, load(to) * load(k + i) + load(x + at + p * c + i) * load(k + c + i) + load(k + 2 * c + i));
        }
    }
  }
}
