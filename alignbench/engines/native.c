/* Decoding on a CPU, compiled for the machine it runs on: see native.py, which builds and calls this.

   One call takes some rows through a number of steps: embedding, layers, head, and the choice of the next
   token. A row is computed by itself: what else runs with it changes no bit of its numbers, as every sum is
   taken in the same order however many rows share a product.

   Matrices are laid out in panels of PANEL output columns, [panel][input][PANEL], filled up with zeros; rows
   of activations are `pad`ded to whole panels, so that no product has a remainder. All numbers are float32. */

#include <math.h>
#include <stdint.h>
#include <string.h>

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

typedef float Vec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH), aligned(4)));
#define VEC(p) (*(const Vec *)(p))
#define INLINE static inline __attribute__((always_inline))

/* ---- what Python hands over (native.py declares the same, in the same order) */

typedef struct {
  const float *matrix, *bias; /* panels; bias [out] or NULL */
  int64_t in, out;
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
  float **keys, **values;                     /* of each layer [slot][group][capacity][size] */
  const float **common_keys, **common_values; /* of each layer [group] panels: what all rows begin with */
  int64_t capacity, common;                   /* common: its tokens */
} Cache;

typedef struct {
  int64_t *column, *step;      /* of each row: where its newest token goes, and how many it has produced */
  const int64_t *row, *limit;  /* its place in the following; the most that it may produce */
  int64_t *tokens;             /* [row][longest] */
  float *raw, *sampled;        /* log-probabilities [row][longest] */
  const float *temperature;    /* [row]; 0: greedy */
  const double *uniform;       /* [row][draws] */
  const uint8_t *pause;        /* [token]: whether a row waits for Python behind it */
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

INLINE Vec larger(Vec a, Vec b) {
  Ints more = a > b;
  return (Vec)(((Ints)a & more) | ((Ints)b & ~more));
}

/* e^x, to about one unit in the last place: 2^n · e^r with |r| ≤ ln 2 / 2, e^r by its series */
INLINE Vec exp_of(Vec x) {
  x = -larger(-larger(x, (Vec){} - 87.0f), (Vec){} - 88.0f);
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

/* what a · b needs of the columns behind the last whole vector, others 0 */
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

/* y = x · matrix + bias, or y + that: `rows` rows of one panel */
INLINE void tile(int rows, const float *x, int64_t dx, const float *w, int64_t in, const float *bias, int add,
                 float *y, int64_t dy) {
  Vec sums[TILE][2];
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = (Vec){};
  for (int64_t i = 0; i < in; i++, w += PANEL) {
    Vec a = VEC(w), b = VEC(w + WIDTH);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
      float each = x[r * dx + i];
      sums[r][0] += each * a;
      sums[r][1] += each * b;
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++)
    for (int half = 0; half < 2; half++) {
      Vec *at = (Vec *)(y + r * dy + half * WIDTH), s = sums[r][half];
      if (bias) s += VEC(bias + half * WIDTH);
      if (add) s += *at;
      *at = s;
    }
}

static void tiles(int rows, const float *x, int64_t dx, const float *w, int64_t in, const float *bias, int add,
                  float *y, int64_t dy) {
#define CASE(n) \
  case n: tile(n, x, dx, w, in, bias, add, y, dy); break;
  switch (rows) {
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if TILE == 12
    CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
  }
#undef CASE
}

/* rows [n][dx] through the panels from `first` to `end` of a matrix: y [n][dy], panel `first` at y */
static void product(const Linear *m, int64_t first, int64_t end, const float *x, int64_t dx, int64_t n, int add,
                    float *y, int64_t dy) {
  int64_t pieces = (n + TILE - 1) / TILE;
  for (int64_t p = first; p < end; p++)
    for (int64_t t = 0; t < pieces; t++) {
      int64_t from = n * t / pieces, to = n * (t + 1) / pieces;
      tiles((int)(to - from), x + from * dx, dx, m->matrix + p * m->in * PANEL, m->in,
            m->bias ? m->bias + p * PANEL : NULL, add, y + from * dy + (p - first) * PANEL, dy);
    }
}

static void linear(const Linear *m, const float *x, int64_t dx, int64_t n, int add, float *y, int64_t dy) {
  product(m, 0, pad(m->out) / PANEL, x, dx, n, add, y, dy);
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
  int64_t i = 0;
  for (; i < m->inner; i += WIDTH) { /* beyond the end lies padding, or what is overwritten below */
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

static void attend_own(const float *q, const float *keys, int64_t from, int64_t to, int64_t size, float *s) {
  for (int64_t j = from; j < to; j++) s[j] = dot(q, keys + j * size, size);
}

static void add_values(const float *s, const float *values, int64_t from, int64_t to, int64_t size, float *y) {
  for (int64_t d = 0; d < size; d += 4 * WIDTH) {
    int wide = d + 4 * WIDTH <= size;
    if (wide) {
      Vec *at = (Vec *)(y + d), a = at[0], b = at[1], c = at[2], e = at[3];
      for (int64_t j = from; j < to; j++) {
        const float *v = values + j * size + d;
        a += s[j] * VEC(v), b += s[j] * VEC(v + WIDTH), c += s[j] * VEC(v + 2 * WIDTH), e += s[j] * VEC(v + 3 * WIDTH);
      }
      at[0] = a, at[1] = b, at[2] = c, at[3] = e;
    } else {
      for (int64_t e = d; e < size; e += WIDTH) {
        Vec a = VEC(y + e);
        for (int64_t j = from; j < to; j++) a += s[j] * VEC(values + j * size + e);
        *(Vec *)(y + e) = a;
      }
    }
  }
}

/* queries (scaled) [n][dq] → out [n][dy]; slot and column of each row */
static void attention(const Model *m, const Layer *layer, const Cache *cache, int64_t l, int64_t n,
                      const int64_t *slot, const int64_t *column, const float *q, int64_t dq, float *scores,
                      float *out, int64_t dy) {
  int64_t size = m->size, before = pad(cache->common), ds = before + pad(cache->capacity);
  for (int64_t h = 0; h < m->heads; h++) {
    int64_t g = h / (m->heads / m->groups);
    if (cache->common) {
      Linear keys = {cache->common_keys[l] + g * before * size, NULL, size, cache->common};
      linear(&keys, q + h * size, dq, n, 0, scores, ds);
    }
    for (int64_t r = 0; r < n; r++) {
      float *s = scores + r * ds, *own = s + before;
      int64_t hidden = layer->window ? cache->common + column[r] + 1 - layer->window : 0;
      int64_t far = hidden < 0 ? 0 : hidden < cache->common ? hidden : cache->common; /* of what is common */
      int64_t near = hidden > cache->common ? hidden - cache->common : 0, end = column[r] + 1;
      const float *keys = cache->keys[l] + (slot[r] * m->groups + g) * cache->capacity * size;
      attend_own(q + r * dq + h * size, keys, near, end, size, own);
      float most = largest(own + near, end - near, -LIMIT);
      most = largest(s + far, cache->common - far, most);
      float sum = exponentials(own + near, end - near, most);
      sum += exponentials(s + far, cache->common - far, most);
      for (int64_t j = near; j < end; j++) own[j] /= sum;
      for (int64_t j = far; j < cache->common; j++) s[j] /= sum;
      memset(s, 0, 4 * (size_t)far);
      if (!cache->common) memset(out + r * dy + h * size, 0, 4 * (size_t)size);
    }
    if (cache->common) {
      Linear values = {cache->common_values[l] + g * pad(size) * cache->common, NULL, cache->common, size};
      linear(&values, scores, ds, n, 0, out + h * size, dy); /* its padding falls on what comes next */
    }
    for (int64_t r = 0; r < n; r++) {
      int64_t near = layer->window ? column[r] + 1 - layer->window : 0;
      const float *values = cache->values[l] + (slot[r] * m->groups + g) * cache->capacity * size;
      add_values(scores + r * ds + before, values, near < 0 ? 0 : near, column[r] + 1, size,
                 out + r * dy + h * size);
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
    memcpy(cache->keys[l] + at, qkv + (m->heads + g) * size, 4 * (size_t)size);
    memcpy(cache->values[l] + at, qkv + (m->heads + m->groups + g) * size, 4 * (size_t)size);
  }
}

/* ---- one step */

typedef struct {
  int64_t dx, dh, dq, du, ds, dl;          /* floats from row to row of: */
  float *x, *h, *qkv, *up, *scores, *logits; /* residual stream, normed, ... */
  double *sums;
} Scratch;

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Lays out what n rows need in `at`, or, where that is NULL, says how many floats it takes. */
static int64_t lay_out(const Model *m, const Cache *cache, int64_t n, int whole, float *at, Scratch *s) {
  int64_t heads = m->heads * m->size, kept = m->groups * m->size;
  s->dx = pad(m->width), s->dh = pad(most(m->width, heads)) + PANEL, s->dq = pad(heads + 2 * kept);
  s->du = pad(m->inner * (m->gated ? 2 : 1)), s->ds = pad(cache->common) + pad(cache->capacity);
  s->dl = whole ? pad(m->vocabulary) : BLOCK;
  float **parts[] = {&s->x, &s->h, &s->qkv, &s->up, &s->scores, &s->logits};
  int64_t sizes[] = {s->dx, s->dh, s->dq, s->du, s->ds, s->dl}, total = 0;
  for (int i = 0; i < 6; i++) {
    *parts[i] = at ? at + total : NULL;
    total += n * sizes[i];
  }
  s->sums = at ? (double *)(at + total) : NULL;
  return total + 2 * (pad(m->vocabulary) / BLOCK + 1);
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
    linear(&layer->qkv, s->h, s->dh, n, 0, s->qkv, s->dq);
    for (int64_t r = 0; r < n; r++) keep(m, layer, cache, l, slot[r], column[r], s->qkv + r * s->dq);
    attention(m, layer, cache, l, n, slot, column, s->qkv, s->dq, s->scores, s->h, s->dh);
    linear(&layer->out, s->h, s->dh, n, 1, s->x, s->dx);
    for (int64_t r = 0; r < n; r++) normed(&layer->behind, s->x + r * s->dx, m->width, m->epsilon, s->h + r * s->dh);
    linear(&layer->up, s->h, s->dh, n, 0, s->up, s->du);
    for (int64_t r = 0; r < n; r++) activated(m, s->up + r * s->du);
    linear(&layer->down, s->up, s->du, n, 1, s->x, s->dx);
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

/* Σ e^((logit - most) · factor) of each block; all of it */
static double block_sums(const float *logits, int64_t n, float top, float factor, double *sums) {
  double total = 0;
  for (int64_t first = 0, b = 0; first < n; first += BLOCK, b++) {
    int64_t size = n - first < BLOCK ? n - first : BLOCK, i = 0;
    Vec s = {};
    for (; i + WIDTH <= size; i += WIDTH) s += exp_of((VEC(logits + first + i) - top) * factor);
    double sum = sum_of(s);
    if (i < size) {
      Vec last = exp_of((part(logits + first + i, size - i) - top) * factor);
      for (int64_t j = 0; i + j < size; j++) sum += last[j];
    }
    total += sum;
    if (sums) sums[b] = sum;
  }
  return total;
}

/* inverse CDF in the order of the vocabulary: the first token behind which more than u of the mass lies */
static int64_t drawn(const float *logits, int64_t n, float top, float factor, double u, double *sums, float *logprob) {
  double total = block_sums(logits, n, top, factor, sums), target = u * total;
  if (target >= total) target = nextafter(total, 0);
  int64_t blocks = (n + BLOCK - 1) / BLOCK, b = 0, found = -1;
  while (b < blocks - 1 && target >= sums[b]) target -= sums[b++];
  for (int64_t i = b * BLOCK; i < n && (found < 0 || target >= 0); i++) {
    double p = exp((double)((logits[i] - top) * factor));
    if (p > 0) found = i;
    target -= p;
    if (target < 0 && found >= 0) break;
  }
  *logprob = (logits[found] - top) * factor - (float)log(total);
  return found;
}

static void pick(const Model *m, const Rows *rows, int64_t n, const int64_t *at, int64_t *token, const Scratch *s,
                 Seen *seen) {
  int whole = (int)rows->any_sampled;
  for (int64_t r = 0; r < n; r++) seen[r] = (Seen){-LIMIT, 0, 0};
  for (int64_t first = 0; first < m->vocabulary; first += BLOCK) {
    int64_t size = m->vocabulary - first < BLOCK ? m->vocabulary - first : BLOCK;
    float *logits = s->logits + (whole ? first : 0);
    product(&m->head, first / PANEL, (first + pad(size)) / PANEL, s->h, s->dh, n, 0, logits, s->dl);
    for (int64_t r = 0; r < n; r++) {
      float *own = logits + r * s->dl;
      if (m->scale != 1)
        for (int64_t i = 0; i < size; i++) own[i] *= m->scale;
      see(&seen[r], own, size, first, rows->temperature[rows->row[at[r]]] == 0);
    }
  }
  for (int64_t r = 0; r < n; r++) {
    int64_t row = rows->row[at[r]], to = row * rows->longest + rows->step[at[r]];
    float temperature = rows->temperature[row];
    if (temperature == 0) {
      token[r] = seen[r].best;
      rows->raw[to] = (float)-log(seen[r].sum);
      rows->sampled[to] = 0;
    } else {
      const float *logits = s->logits + r * s->dl;
      double u = rows->uniform[row * rows->draws + rows->step[at[r]]];
      token[r] = drawn(logits, m->vocabulary, seen[r].most, 1 / temperature, u, s->sums, &rows->sampled[to]);
      rows->raw[to] = rows->sampled[to];
      if (temperature != 1)
        rows->raw[to] = logits[token[r]] - seen[r].most -
                        (float)log(block_sums(logits, m->vocabulary, seen[r].most, 1, NULL));
    }
    rows->tokens[to] = token[r];
  }
}

/* Takes rows `first` to `end` through at most `steps` steps, until fewer than `least` of them can go on. A row
   waits when it has all its tokens, or behind a token that it pauses at. Returns how many tokens came of it. */
int64_t decode(const Model *m, const Cache *cache, const Rows *rows, int64_t first, int64_t end, int64_t steps,
               int64_t least, float *room) {
  enum { MOST = 512 };
  int64_t at[MOST], token[MOST], slot[MOST], column[MOST], n = 0, made = 0;
  Seen seen[MOST];
  Scratch s;
  for (int64_t r = first; r < end && n < MOST; r++) at[n++] = r;
  lay_out(m, cache, n, (int)rows->any_sampled, room, &s);
  for (int64_t step = 0; step < steps && n >= least && n; step++) {
    for (int64_t r = 0; r < n; r++) {
      token[r] = rows->tokens[rows->row[at[r]] * rows->longest + rows->step[at[r]] - 1];
      slot[r] = at[r], column[r] = ++rows->column[at[r]];
    }
    forward(m, cache, n, token, slot, column, &s);
    pick(m, rows, n, at, token, &s, seen);
    int64_t left = 0;
    for (int64_t r = 0; r < n; r++) {
      int64_t own = at[r];
      if (++rows->step[own] < rows->limit[rows->row[own]] && !rows->pause[token[r]]) at[left++] = own;
    }
    made += n, n = left;
  }
  return made;
}

/* Lays out weights [out][in] (given their strides) in panels. */
void lay_panels(const float *w, int64_t out, int64_t in, int64_t by_out, int64_t by_in, float *panels) {
  for (int64_t p = 0; p < pad(out) / PANEL; p++)
    for (int64_t i = 0; i < in; i++)
      for (int64_t c = 0; c < PANEL; c++) {
        int64_t o = p * PANEL + c;
        panels[(p * in + i) * PANEL + c] = o < out ? w[o * by_out + i * by_in] : 0;
      }
}
