/* Decoding on a CPU, compiled for the machine it runs on: see native.py, which builds and calls this.

   One call takes some rows through a number of steps: embedding, layers, head, and the choice of the next
   token. A row is computed by itself: which rows run with it changes no bit of its numbers, as every sum is
   taken in the same order however many rows share a product.

   Matrices are laid out in panels of PANEL output columns, [panel][input][PANEL], filled up with zeros; rows
   of activations are `pad`ded to whole panels, so that no product has a remainder. All numbers are float32, but
   that a matrix may be in bfloat16: then what it is multiplied with is rounded to bfloat16, too, and the sums
   are float32. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 16
#define TILE 12
#elif defined(__AVX__)
#define WIDTH 8
#define TILE 6
#elif defined(__aarch64__)
#define WIDTH 4
#define TILE 12
#else
#define WIDTH 4
#define TILE 6
#endif
#define PANEL (2 * WIDTH)
#define BLOCK (16 * PANEL) /* columns of logits that are looked at while they lie in the cache */
#define LIMIT 2e38f
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 24")
#endif

typedef float Vec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH), aligned(4)));
#define VEC(p) (*(const Vec *)(p))
#define INLINE static inline __attribute__((always_inline))

/* ---- what Python hands over (native.py declares the same, in the same order) */

typedef struct {
  const void *matrix; /* panels of floats; or, where `halves`, of pairs of bfloat16: [panel][in / 2][PANEL][2] */
  const float *bias;  /* [out] or NULL */
  int64_t in, out, halves;
} Linear;

typedef struct {
  const float *weight, *bias; /* bias: a layer norm's; NULL: root-mean-square norm */
} Norm;

typedef struct {
  Norm before, behind, query, key; /* query, key: of each head, weight NULL where there are none */
  Linear qkv, out, up, down;       /* up: gate and up one behind the other where the MLP is gated */
  int64_t window;                  /* positions that a token sees, itself included; 0: all */
  float scale;                     /* of attention's scores */
} Layer;

typedef struct {
  int64_t layers, width, heads, groups, size, inner, vocabulary; /* groups: key-value heads; size: of a head */
  int64_t gated;                                                 /* silu(gate) · up, else tanh's gelu(up) */
  float epsilon, scale;                                          /* scale: of the logits */
  const float *embedding, *positions; /* positions: learned, or NULL */
  const float *cosine, *sine;         /* [position][size], or NULL */
  const Layer *layer;
  Norm last;
  Linear head;
} Model;

typedef struct {
  float **keys;   /* of each layer [slot][group]: panels of columns, each [size][PANEL] */
  float **values; /* of each layer [slot][group][capacity][size] */
  const float **common_keys, **common_values; /* of each layer [group]: what all rows begin with, in panels of
                                                 its tokens, and of a value's numbers */
  int64_t capacity, common;                   /* columns of a slot; tokens that are common */
} Cache;

typedef struct {
  int64_t *column, *step;     /* of each slot: where its newest token is, and how many it has produced */
  const int64_t *row;         /* its place in all that follows */
  const int64_t *limit;       /* [row] the most that it may produce */
  int64_t *tokens;            /* [row][longest] */
  float *raw, *sampled;       /* their log-probabilities, the model's and as sampled: [row][longest] */
  const float *temperature;   /* [row] 0: greedy */
  const int64_t *top_k;       /* [row] as many as there are tokens: off */
  const float *top_p;         /* [row] 1: off */
  const double *uniform;      /* [row][draws] */
  const uint8_t *pause;       /* [token] whether a row waits for Python behind it */
  int64_t longest, draws, any_sampled;
} Rows;

/* ---- small things */

static int64_t pad(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }

INLINE float sum_of(Vec x) {
  float s = 0;
  for (int i = 0; i < WIDTH; i++) s += x[i];
  return s;
}

INLINE float largest_of(Vec x) {
  float m = x[0];
  for (int i = 1; i < WIDTH; i++) m = x[i] > m ? x[i] : m;
  return m;
}

/* of what is not a number, b */
INLINE Vec larger(Vec a, Vec b) {
  Ints more = a > b;
  return (Vec)(((Ints)a & more) | ((Ints)b & ~more));
}

/* e^x, to about one unit in the last place: 2^n · e^r with |r| ≤ ln 2 / 2, e^r by its series */
INLINE Vec exp_of(Vec x) {
  x = -larger((Vec){} - 88.0f, -larger((Vec){} - 87.0f, x));
  Vec n = x * 1.44269504f + 12582912.0f; /* 1.5 · 2^23: what is behind the point is rounded off */
  n -= 12582912.0f;
  Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec y = r * (1.0f / 5040) + 1.0f / 720;
  y = y * r + 1.0f / 120;
  y = y * r + 1.0f / 24;
  y = y * r + 1.0f / 6;
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
  Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
  return y * (Vec)power;
}

/* the first n numbers, n <= WIDTH; others 0 */
INLINE Vec part(const float *p, int64_t n) {
  Vec x = {};
  memcpy(&x, p, 4 * (size_t)n);
  return x;
}

static float dot(const float *a, const float *b, int64_t n) {
  Vec s = {};
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) s += VEC(a + i) * VEC(b + i);
  if (i < n) s += part(a + i, n - i) * part(b + i, n - i);
  return sum_of(s);
}

/* ---- layers */

/* y = x · matrix + bias, or y + that: `rows` rows of one panel. `ways`: sums that are taken side by side and
   added up last, so that few rows need not wait for each addition. */
INLINE void tile(int rows, int ways, const float *x, int64_t dx, const float *w, int64_t in, const float *bias,
                 int add, float *y, int64_t dy) {
  Vec sums[TILE][2] = {};
  UNROLL for (int k = 0; k < rows * ways; k++) sums[k][0] = sums[k][1] = (Vec){};
  for (int64_t i = 0; i + ways <= in; i += ways, w += ways * PANEL)
    UNROLL for (int k = 0; k < ways; k++) {
      Vec a = VEC(w + k * PANEL), b = VEC(w + k * PANEL + WIDTH);
      UNROLL for (int r = 0; r < rows; r++) {
        float each = x[r * dx + i + k];
        sums[k * rows + r][0] += each * a;
        sums[k * rows + r][1] += each * b;
      }
    }
  UNROLL for (int r = 0; r < rows; r++)
    for (int half = 0; half < 2; half++) {
      Vec *at = (Vec *)(y + r * dy + half * WIDTH), s = sums[r][half];
      for (int k = 1; k < ways; k++) s += sums[k * rows + r][half];
      if (bias) s += VEC(bias + half * WIDTH);
      if (add) s += *at;
      *at = s;
    }
}

static void tiles(int rows, const float *x, int64_t dx, const float *w, int64_t in, const float *bias, int add,
                  float *y, int64_t dy) {
#define CASE(n) \
  case n: tile(n, 1, x, dx, w, in, bias, add, y, dy); break;
  switch (rows) {
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if TILE == 12
    CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
  }
#undef CASE
}

#ifdef __AVX512BF16__
/* the same, for pairs of bfloat16 */
INLINE void tile_of_halves(int rows, const int32_t *x, int64_t dx, const char *w, int64_t pairs, const float *bias,
                           int add, float *y, int64_t dy) {
  __m512 sums[TILE][2];
  UNROLL for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
  for (int64_t i = 0; i < pairs; i++, w += 4 * PANEL) {
    __m512bh a = (__m512bh)_mm512_loadu_si512(w), b = (__m512bh)_mm512_loadu_si512(w + 64);
    UNROLL for (int r = 0; r < rows; r++) {
      __m512bh each = (__m512bh)_mm512_set1_epi32(x[r * dx + i]);
      sums[r][0] = _mm512_dpbf16_ps(sums[r][0], each, a);
      sums[r][1] = _mm512_dpbf16_ps(sums[r][1], each, b);
    }
  }
  UNROLL for (int r = 0; r < rows; r++)
    for (int half = 0; half < 2; half++) {
      Vec *at = (Vec *)(y + r * dy + half * WIDTH), s = (Vec)sums[r][half];
      if (bias) s += VEC(bias + half * WIDTH);
      if (add) s += *at;
      *at = s;
    }
}

static void tiles_of_halves(int rows, const int32_t *x, int64_t dx, const char *w, int64_t pairs, const float *bias,
                            int add, float *y, int64_t dy) {
#define CASE(n) \
  case n: tile_of_halves(n, x, dx, w, pairs, bias, add, y, dy); break;
  switch (rows) {
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
  }
#undef CASE
}

/* numbers, rounded to bfloat16, in pairs; an odd one is followed by 0 */
static void rounded(const float *x, int64_t n, int32_t *pairs) {
  for (int64_t i = 0; i < n; i += 16) {
    __mmask16 there = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
    __m256bh y = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(there, x + i));
    memcpy(pairs + i / 2, &y, n - i < 16 ? 4 * (size_t)((n - i + 1) / 2) : 32);
  }
}
#endif

int64_t multiplies_halves(void) {
#ifdef __AVX512BF16__
  return 1;
#else
  return 0;
#endif
}

/* rows [n][dx] through the panels from `first` to `end` of a matrix: y [n][dy], panel `first` at y. `halves`: room
   for the rows in bfloat16, which are there already unless `fresh`. */
static void product(const Linear *m, int64_t first, int64_t end, const float *x, int64_t dx, int64_t n, int add,
                    float *y, int64_t dy, int32_t *halves, int fresh) {
  int64_t pieces = (n + TILE - 1) / TILE, pairs = (m->in + 1) / 2;
  (void)halves, (void)fresh;
#ifdef __AVX512BF16__
  for (int64_t r = 0; r < n && m->halves && fresh; r++) rounded(x + r * dx, m->in, halves + r * pairs);
#endif
  for (int64_t p = first; p < end; p++)
    for (int64_t t = 0; t < pieces; t++) {
      int64_t from = n * t / pieces, rows = n * (t + 1) / pieces - from;
      const float *bias = m->bias ? m->bias + p * PANEL : NULL;
      float *to = y + from * dy + (p - first) * PANEL;
#ifdef __AVX512BF16__
      if (m->halves) {
        const char *panel = (const char *)m->matrix + p * pairs * 4 * PANEL;
        tiles_of_halves((int)rows, halves + from * pairs, pairs, panel, pairs, bias, add, to, dy);
        continue;
      }
#endif
      tiles((int)rows, x + from * dx, dx, (const float *)m->matrix + p * m->in * PANEL, m->in, bias, add, to, dy);
    }
  (void)pairs;
}

static void linear(const Linear *m, const float *x, int64_t dx, int64_t n, int add, float *y, int64_t dy,
                   int32_t *halves) {
  product(m, 0, pad(m->out) / PANEL, x, dx, n, add, y, dy, halves, 1);
}

static void normed(const Norm *norm, const float *x, int64_t n, float epsilon, float *y) {
  float mean = 0, square;
  if (norm->bias) {
    Vec s = {};
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) s += VEC(x + i);
    if (i < n) s += part(x + i, n - i);
    mean = sum_of(s) / n;
    for (i = 0; i < n; i++) y[i] = x[i] - mean;
    x = y;
  }
  square = dot(x, x, n) / n;
  float factor = 1 / sqrtf(square + epsilon);
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * factor * norm->weight[i] + (norm->bias ? norm->bias[i] : 0);
}

/* a head's rotation by its position (Su et al. 2021, eq. 34, halves instead of pairs) */
static void rotated(float *x, const float *cosine, const float *sine, int64_t size) {
  int64_t half = size / 2;
  for (int64_t i = 0; i < half; i++) {
    float a = x[i], b = x[i + half];
    x[i] = a * cosine[i] - b * sine[i];
    x[i + half] = b * cosine[i + half] + a * sine[i + half];
  }
}

static void activated(const Model *m, float *x) {
  for (int64_t i = 0; i < m->inner; i += WIDTH) {
    int64_t n = m->inner - i < WIDTH ? m->inner - i : WIDTH;
    Vec a = part(x + i, n), y;
    if (m->gated) {
      y = a / (1.0f + exp_of(-a)) * part(x + m->inner + i, n);
    } else {
      y = a / (1.0f + exp_of(-1.59576912f * (a + 0.044715f * a * a * a)));
    }
    memcpy(x + i, &y, 4 * (size_t)n);
  }
}

/* ---- attention: each row behind what all have in common and behind its own */

/* s = e^(s - most); their sum */
static float exponentials(float *s, int64_t n, float most) {
  Vec sums = {};
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) sums += *(Vec *)(s + i) = exp_of(VEC(s + i) - most);
  float sum = sum_of(sums);
  if (i < n) {
    Vec last = exp_of(part(s + i, n - i) - most);
    for (int64_t j = 0; i + j < n; j++) sum += s[i + j] = last[j];
  }
  return sum;
}

static float largest(const float *s, int64_t n, float most) {
  Vec m = (Vec){} + most;
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) m = larger(VEC(s + i), m);
  most = largest_of(m);
  for (; i < n; i++) most = s[i] > most ? s[i] : most;
  return most;
}

/* scores of the keys in the panels from `from` to `to` - 1, for the queries [n][size] of one group */
static void scores_of(const float *q, int64_t n, const float *keys, int64_t from, int64_t to, int64_t size,
                      float *s, int64_t ds) {
  for (int64_t c = from / PANEL * PANEL; c < to; c += PANEL) {
    const float *panel = keys + c * size;
    int64_t r = 0;
    for (; r + 2 <= n; r += 2) tile(2, 1, q + r * size, size, panel, size, NULL, 0, s + r * ds + c, ds);
    if (r < n) tile(1, 2, q + r * size, size, panel, size, NULL, 0, s + r * ds + c, ds);
  }
}

/* y += Σ s · value, in `wide` vectors of a value at once and `ways` sums */
INLINE void add_part(int wide, int ways, const float *s, const float *values, int64_t from, int64_t to,
                     int64_t size, float *y) {
  Vec sums[4] = {};
  int64_t j = from;
  for (; j + ways <= to; j += ways)
    UNROLL for (int k = 0; k < ways; k++)
      UNROLL for (int i = 0; i < wide; i++) sums[k * wide + i] += s[j + k] * VEC(values + (j + k) * size + i * WIDTH);
  for (; j < to; j++)
    for (int i = 0; i < wide; i++) sums[i] += s[j] * VEC(values + j * size + i * WIDTH);
  for (int i = 0; i < wide; i++) {
    for (int k = 1; k < ways; k++) sums[i] += sums[k * wide + i];
    *(Vec *)(y + i * WIDTH) += sums[i];
  }
}

static void add_values(const float *s, const float *values, int64_t from, int64_t to, int64_t size, float *y) {
  int64_t d = 0;
  for (; d + 4 * WIDTH <= size; d += 4 * WIDTH) add_part(4, 1, s, values + d, from, to, size, y + d);
  for (; d + 2 * WIDTH <= size; d += 2 * WIDTH) add_part(2, 2, s, values + d, from, to, size, y + d);
  for (; d < size; d += WIDTH) add_part(1, 4, s, values + d, from, to, size, y + d);
}

/* queries (scaled) [n][dq] → out [n][dy]; slot and column of each row. scores: [n][heads of a group][ds] */
static void attention(const Model *m, const Layer *layer, const Cache *cache, int64_t l, int64_t n,
                      const int64_t *slot, const int64_t *column, const float *q, int64_t dq, float *scores,
                      int64_t ds, float *out, int64_t dy) {
  int64_t size = m->size, before = pad(cache->common), share = m->heads / m->groups, dr = share * ds;
  for (int64_t g = 0; g < m->groups; g++) {
    for (int64_t h = 0; h < share && cache->common; h++) {
      Linear keys = {cache->common_keys[l] + g * before * size, NULL, size, cache->common, 0};
      linear(&keys, q + (g * share + h) * size, dq, n, 0, scores + h * ds, dr, NULL);
    }
    for (int64_t r = 0; r < n; r++) {
      int64_t hidden = layer->window ? cache->common + column[r] + 1 - layer->window : 0;
      int64_t far = hidden < 0 ? 0 : hidden < cache->common ? hidden : cache->common; /* of what is common */
      int64_t near = hidden > cache->common ? hidden - cache->common : 0, end = column[r] + 1;
      int64_t at = (slot[r] * m->groups + g) * cache->capacity * size;
      scores_of(q + r * dq + g * share * size, share, cache->keys[l] + at, near, end, size,
                scores + r * dr + before, ds);
      for (int64_t h = 0; h < share; h++) {
        float *s = scores + r * dr + h * ds, *own = s + before;
        float most = largest(own + near, end - near, -LIMIT);
        most = largest(s + far, cache->common - far, most);
        float sum = exponentials(own + near, end - near, most);
        sum += exponentials(s + far, cache->common - far, most);
        for (int64_t j = near; j < end; j++) own[j] /= sum;
        for (int64_t j = far; j < cache->common; j++) s[j] /= sum;
        memset(s, 0, 4 * (size_t)far);
      }
    }
    for (int64_t h = 0; h < share; h++) {
      float *y = out + (g * share + h) * size;
      if (cache->common) {
        Linear values = {cache->common_values[l] + g * pad(size) * cache->common, NULL, cache->common, size, 0};
        linear(&values, scores + h * ds, dr, n, 0, y, dy, NULL); /* its padding falls on what comes next */
      }
      for (int64_t r = 0; r < n; r++) {
        int64_t hidden = layer->window ? cache->common + column[r] + 1 - layer->window : 0;
        int64_t near = hidden > cache->common ? hidden - cache->common : 0;
        int64_t at = (slot[r] * m->groups + g) * cache->capacity * size;
        if (!cache->common) memset(y + r * dy, 0, 4 * (size_t)size);
        add_values(scores + r * dr + h * ds + before, cache->values[l] + at, near, column[r] + 1, size, y + r * dy);
      }
    }
  }
}

/* a row's queries and newest key: normed, rotated, scaled; key and value are kept */
static void keep(const Model *m, const Layer *layer, const Cache *cache, int64_t l, int64_t slot, int64_t column,
                 float *qkv) {
  int64_t size = m->size, position = cache->common + column;
  for (int64_t h = 0; h < m->heads + m->groups; h++) {
    const Norm *norm = h < m->heads ? &layer->query : &layer->key;
    float *x = qkv + h * size;
    if (norm->weight) normed(norm, x, size, m->epsilon, x);
    if (m->cosine) rotated(x, m->cosine + position * size, m->sine + position * size, size);
  }
  for (int64_t i = 0; i < m->heads * size; i++) qkv[i] *= layer->scale;
  for (int64_t g = 0; g < m->groups; g++) {
    int64_t at = ((slot * m->groups + g) * cache->capacity + column) * size;
    float *key = cache->keys[l] + at - (column % PANEL) * size + column % PANEL;
    for (int64_t i = 0; i < size; i++) key[i * PANEL] = qkv[(m->heads + g) * size + i];
    memcpy(cache->values[l] + at, qkv + (m->heads + m->groups + g) * size, 4 * (size_t)size);
  }
}

/* ---- one step */

typedef struct {
  float logit;
  int32_t token;
} Candidate;

typedef struct {
  int64_t dx, dh, dq, du, ds, dl;          /* floats from row to row of: */
  float *x, *h, *qkv, *up, *scores, *logits;
  int32_t *halves;
  Candidate *room;
  double *blocks;
} Scratch;

/* Lays out in `at` what n rows need, or, where that is NULL, says how many floats it takes. `whole`: logits of
   the whole vocabulary are kept, as sampling looks at them twice. */
static int64_t lay_out(const Model *m, const Cache *cache, int64_t n, int whole, float *at, Scratch *s) {
  int64_t heads = m->heads * m->size, total = 0;
  s->dx = pad(m->width), s->dh = pad(heads > m->width ? heads : m->width) + PANEL;
  s->dq = pad(heads + 2 * m->groups * m->size), s->du = pad(m->inner * (m->gated ? 2 : 1));
  s->ds = pad(cache->common) + pad(cache->capacity), s->dl = whole ? pad(m->vocabulary) : BLOCK;
  float **parts[] = {&s->x, &s->h, &s->qkv, &s->up, &s->scores, &s->logits};
  int64_t sizes[] = {s->dx, s->dh, s->dq, s->du, m->heads / m->groups * s->ds, s->dl};
  for (int i = 0; i < 6; i++) {
    *parts[i] = at ? at + total : NULL;
    total += n * sizes[i];
  }
  s->halves = at ? (int32_t *)(at + total) : NULL;
  total += m->head.halves ? n * (s->dh > s->du ? s->dh : s->du) : 0;
  s->room = at ? (Candidate *)(at + total) : NULL; /* of two floats each, as are the doubles behind */
  total += whole ? 2 * pad(m->vocabulary) : 0;
  s->blocks = at ? (double *)(at + total) : NULL;
  return total + (whole ? 2 * (m->vocabulary / BLOCK + 1) : 0);
}

int64_t scratch_floats(const Model *m, const Cache *cache, int64_t n, int64_t whole) {
  Scratch s;
  return lay_out(m, cache, n, (int)whole, NULL, &s);
}

int64_t panel_columns(void) { return PANEL; }
int64_t vector_floats(void) { return WIDTH; }

/* the newest tokens of n rows → states behind the last norm, in s->h */
static void forward(const Model *m, const Cache *cache, int64_t n, const int64_t *token, const int64_t *slot,
                    const int64_t *column, const Scratch *s) {
  for (int64_t r = 0; r < n; r++) {
    float *x = s->x + r * s->dx;
    memcpy(x, m->embedding + token[r] * m->width, 4 * (size_t)m->width);
    if (m->positions)
      for (int64_t i = 0; i < m->width; i++) x[i] += m->positions[(cache->common + column[r]) * m->width + i];
  }
  for (int64_t l = 0; l < m->layers; l++) {
    const Layer *layer = m->layer + l;
    for (int64_t r = 0; r < n; r++) normed(&layer->before, s->x + r * s->dx, m->width, m->epsilon, s->h + r * s->dh);
    linear(&layer->qkv, s->h, s->dh, n, 0, s->qkv, s->dq, s->halves);
    for (int64_t r = 0; r < n; r++) keep(m, layer, cache, l, slot[r], column[r], s->qkv + r * s->dq);
    attention(m, layer, cache, l, n, slot, column, s->qkv, s->dq, s->scores, s->ds, s->h, s->dh);
    linear(&layer->out, s->h, s->dh, n, 1, s->x, s->dx, s->halves);
    for (int64_t r = 0; r < n; r++) normed(&layer->behind, s->x + r * s->dx, m->width, m->epsilon, s->h + r * s->dh);
    linear(&layer->up, s->h, s->dh, n, 0, s->up, s->du, s->halves);
    for (int64_t r = 0; r < n; r++) activated(m, s->up + r * s->du);
    linear(&layer->down, s->up, s->du, n, 1, s->x, s->dx, s->halves);
  }
  for (int64_t r = 0; r < n; r++) normed(&m->last, s->x + r * s->dx, m->width, m->epsilon, s->h + r * s->dh);
}

/* ---- the head and the choice of a token */

typedef struct {
  float most;   /* the largest logit so far, */
  int64_t best; /* where it is first, */
  double sum;   /* and Σ e^(logit - most) */
} Seen;

static void see(Seen *seen, const float *logits, int64_t n, int64_t first, int sum) {
  float top = largest(logits, n, -LIMIT);
  if (top > seen->most) {
    int64_t i = 0;
    while (i < n && logits[i] != top) i++;
    if (seen->most > -LIMIT) seen->sum *= exp((double)seen->most - top);
    seen->most = top, seen->best = first + i;
  }
  if (!sum) return;
  Vec sums = {}, low = (Vec){} + seen->most;
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) sums += exp_of(VEC(logits + i) - low);
  float part_sum = sum_of(sums);
  if (i < n) {
    Vec last = exp_of(part(logits + i, n - i) - low);
    for (int64_t j = 0; i + j < n; j++) part_sum += last[j];
  }
  seen->sum += part_sum;
}

/* Σ e^((logit - top) · factor), and that of each block */
static double masses(const float *logits, int64_t n, float top, float factor, double *blocks) {
  double total = 0;
  for (int64_t first = 0, b = 0; first < n; first += BLOCK, b++) {
    int64_t end = n - first < BLOCK ? n : first + BLOCK, i = first;
    Vec s = {};
    for (; i + WIDTH <= end; i += WIDTH) s += exp_of((VEC(logits + i) - top) * factor);
    double sum = sum_of(s);
    if (i < end) {
      Vec last = exp_of((part(logits + i, end - i) - top) * factor);
      for (int64_t j = 0; i + j < end; j++) sum += last[j];
    }
    total += sum;
    if (blocks) blocks[b] = sum;
  }
  return total;
}

/* u of the total mass, but less than all of it: rounding must not lift it onto the end */
static double target_of(double u, double total) { return u * total < total ? u * total : nextafter(total, 0); }

/* Inverse CDF in the order of the vocabulary: the first token up to which more than u of the mass lies. */
static int64_t drawn(const float *logits, int64_t n, float top, float factor, double u, double *blocks,
                     float *logprob) {
  double total = masses(logits, n, top, factor, blocks), target = target_of(u, total);
  int64_t b = 0, found = -1;
  while ((b + 1) * BLOCK < n && target >= blocks[b]) target -= blocks[b++];
  for (int64_t i = b * BLOCK; i < n && (found < 0 || target >= 0); i++) {
    double mass = exp((double)((logits[i] - top) * factor));
    if (mass > 0) found = i, target -= mass;
  }
  if (found < 0) found = n - 1; /* logits that are not numbers, which Python finds */
  *logprob = (logits[found] - top) * factor - (float)log(total);
  return found;
}

static int by_logit(const void *a, const void *b) {
  const Candidate *x = a, *y = b;
  return x->logit != y->logit ? (x->logit < y->logit ? 1 : -1) : x->token - y->token;
}

static int by_token(const void *a, const void *b) {
  return ((const Candidate *)a)->token - ((const Candidate *)b)->token;
}

/* how many logits are at least `least`, and the mass of these */
static int64_t above(const float *logits, int64_t n, float top, float factor, float least, double *mass) {
  int64_t found = 0;
  *mass = 0;
  for (int64_t first = 0; first < n; first += BLOCK) {
    int64_t end = n - first < BLOCK ? n : first + BLOCK, i = first;
    Vec masses = {};
    Ints counts = {};
    for (; i + WIDTH <= end; i += WIDTH) {
      Vec x = VEC(logits + i);
      Ints there = x >= (Vec){} + least;
      masses += (Vec)((Ints)exp_of((x - top) * factor) & there);
      counts -= there;
    }
    double sum = sum_of(masses);
    for (int k = 0; k < WIDTH; k++) found += counts[k];
    for (; i < end; i++)
      if (logits[i] >= least) found++, sum += exp((double)((logits[i] - top) * factor));
    *mass += sum;
  }
  return found;
}

/* The same among the k likeliest, and of these among the fewest whose mass reaches p (nucleus; Holtzman et al.
   2020, eq. 2). `room`: n candidates. */
static int64_t drawn_from_few(const float *logits, int64_t n, float top, float factor, int64_t k, float p,
                              double u, Candidate *room, float *logprob) {
  int64_t found = 0, kept = 0;
  double all = k < n ? 0 : masses(logits, n, top, factor, NULL), mass = 0;
  float least = top;
  /* those that are near enough to the largest: only they need to be put in order */
  for (float near = 2 / factor; least > -INFINITY; near = near > 0 ? 2 * near : 1) {
    least = near < LIMIT ? top - near : -INFINITY;
    found = above(logits, n, top, factor, least, &mass);
    if (found == n || (k < n ? found >= k : mass >= p * all * (1 + 1e-6))) break;
  }
  found = 0;
  for (int64_t i = 0; i < n; i++)
    if (logits[i] >= least) room[found++] = (Candidate){logits[i], (int32_t)i};
  qsort(room, (size_t)found, sizeof *room, by_logit);
  if (k < n) {
    found = found < k ? found : k, all = 0;
    for (int64_t i = 0; i < found; i++) all += exp((double)((room[i].logit - top) * factor));
  }
  double total = 0;
  while (kept < found && (kept == 0 || p >= 1 || total < p * all))
    total += exp((double)((room[kept++].logit - top) * factor));
  if (!kept) return *logprob = NAN, 0; /* logits that are not numbers */
  qsort(room, (size_t)kept, sizeof *room, by_token);
  double target = target_of(u, total);
  int64_t i = 0;
  for (; i < kept - 1; i++) {
    target -= exp((double)((room[i].logit - top) * factor));
    if (target < 0) break;
  }
  *logprob = (room[i].logit - top) * factor - (float)log(total);
  return room[i].token;
}

static int64_t sampled(const Model *m, const Rows *rows, int64_t row, int64_t step, const float *logits, float top,
                       const Scratch *s, float *raw, float *logprob) {
  float factor = 1 / rows->temperature[row];
  double u = rows->uniform[row * rows->draws + step];
  int64_t n = m->vocabulary, k = rows->top_k[row];
  int few = k < n || rows->top_p[row] < 1;
  int64_t token = few ? drawn_from_few(logits, n, top, factor, k, rows->top_p[row], u, s->room, logprob)
                      : drawn(logits, n, top, factor, u, s->blocks, logprob);
  *raw = few || factor != 1 ? logits[token] - top - (float)log(masses(logits, n, top, 1, NULL)) : *logprob;
  return token;
}

/* states in s->h → the next token of the n slots at `at`, written down with its log-probabilities */
static void pick(const Model *m, const Rows *rows, int64_t n, const int64_t *at, int64_t *token, const Scratch *s) {
  Seen seen[n];
  for (int64_t r = 0; r < n; r++) seen[r] = (Seen){-LIMIT, 0, 0};
  for (int64_t first = 0; first < m->vocabulary; first += BLOCK) {
    int64_t size = m->vocabulary - first < BLOCK ? m->vocabulary - first : BLOCK;
    float *logits = s->logits + (rows->any_sampled ? first : 0);
    product(&m->head, first / PANEL, (first + pad(size)) / PANEL, s->h, s->dh, n, 0, logits, s->dl, s->halves,
            first == 0);
    for (int64_t r = 0; r < n; r++) {
      float *own = logits + r * s->dl;
      if (m->scale != 1)
        for (int64_t i = 0; i < size; i++) own[i] *= m->scale;
      see(&seen[r], own, size, first, rows->temperature[rows->row[at[r]]] == 0);
    }
  }
  for (int64_t r = 0; r < n; r++) {
    int64_t row = rows->row[at[r]], step = rows->step[at[r]], to = row * rows->longest + step;
    if (rows->temperature[row] == 0) {
      token[r] = seen[r].best, rows->raw[to] = (float)-log(seen[r].sum), rows->sampled[to] = 0;
    } else {
      token[r] = sampled(m, rows, row, step, s->logits + r * s->dl, seen[r].most, s, rows->raw + to,
                         rows->sampled + to);
    }
    rows->tokens[to] = token[r];
  }
}

/* Takes slots `first` to `end` through at most `steps` steps, until fewer than `least` of them can go on. A slot
   waits when it has all its tokens, or behind a token that it pauses at. Returns how many tokens came of it. */
int64_t decode(const Model *m, const Cache *cache, const Rows *rows, int64_t first, int64_t end, int64_t steps,
               int64_t least, float *room) {
  int64_t n = end - first, at[n], token[n], column[n], made = 0;
  Scratch s;
  lay_out(m, cache, n, (int)rows->any_sampled, room, &s);
  for (int64_t r = 0; r < n; r++) at[r] = first + r;
  for (int64_t step = 0; step < steps && n > 0 && n >= least; step++) {
    for (int64_t r = 0; r < n; r++) {
      token[r] = rows->tokens[rows->row[at[r]] * rows->longest + rows->step[at[r]] - 1];
      column[r] = ++rows->column[at[r]];
    }
    forward(m, cache, n, token, at, column, &s);
    pick(m, rows, n, at, token, &s);
    int64_t left = 0;
    for (int64_t r = 0; r < n; r++) {
      int64_t slot = at[r];
      if (++rows->step[slot] < rows->limit[rows->row[slot]] && !rows->pause[token[r]]) at[left++] = slot;
    }
    made += n, n = left;
  }
  return made;
}

/* ---- layouts */

/* Keys [capacity][size] of `n` blocks, one behind the other, into panels of columns, where they lie. */
void turn_keys(float *keys, int64_t n, int64_t capacity, int64_t columns, int64_t size, float *room) {
  for (int64_t b = 0; b < n; b++, keys += capacity * size)
    for (int64_t c = 0; c < columns; c += PANEL) {
      float *panel = keys + c * size;
      memcpy(room, panel, 4 * (size_t)(PANEL * size));
      for (int64_t j = 0; j < PANEL; j++)
        for (int64_t i = 0; i < size; i++) panel[i * PANEL + j] = room[j * size + i];
    }
}

/* Lays out weights [out][in] (given their strides) in panels; a few inputs at a time, so that what is read and
   what is written stay in the cache. */
#define FEW 16
void lay_panels(const float *w, int64_t out, int64_t in, int64_t by_out, int64_t by_in, float *panels) {
  for (int64_t p = 0; p < pad(out) / PANEL; p++)
    for (int64_t first = 0; first < in; first += FEW)
      for (int64_t c = 0; c < PANEL; c++) {
        int64_t o = p * PANEL + c, end = first + FEW < in ? first + FEW : in;
        for (int64_t i = first; i < end; i++)
          panels[(p * in + i) * PANEL + c] = o < out ? w[o * by_out + i * by_in] : 0;
      }
}

/* The same of bfloat16, in pairs of inputs. */
void lay_halves(const uint16_t *w, int64_t out, int64_t in, int64_t by_out, int64_t by_in, uint16_t *panels) {
  int64_t pairs = (in + 1) / 2;
  for (int64_t p = 0; p < pad(out) / PANEL; p++)
    for (int64_t first = 0; first < 2 * pairs; first += FEW)
      for (int64_t c = 0; c < PANEL; c++) {
        int64_t o = p * PANEL + c, end = first + FEW < 2 * pairs ? first + FEW : 2 * pairs;
        for (int64_t i = first; i < end; i++)
          panels[((p * pairs + i / 2) * PANEL + c) * 2 + i % 2] =
              o < out && i < in ? w[o * by_out + i * by_in] : 0;
      }
}
