/* Sums over tensors in the host's memory, each in one call and one look at every entry.

   Knows neither torch nor Python: addresses, sizes, kinds of number. A tensor is seen as [v0, e0, v1, e1] in the order of
   memory, v counting vectors and e the entries of a vector. Sums are taken in double. A NaN is ordered by no comparison
   here, so none of -ffast-math's promises may be made; the order of a sum is left to the compiler, loop by loop. */
#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
/* The loader takes what the machine can do: what is compiled here runs on any x86-64. */
#define FOR_EACH_MACHINE __attribute__((target_clones("arch=haswell", "default")))
#else
#define FOR_EACH_MACHINE
#endif

enum { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };
enum { INPUT, GRAD_OUTPUT, GRAD_INPUT };
enum { NO_SIGMA, EPS_AT_ROOT, EPS_AT_SIGMA, EPS_AT_NORM, UNSCALED };

INLINE float of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE float of_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half & 0x7c00, rest = half & 0x7fff;
    float small = (float)(int32_t)rest * 0x1p-24f; /* no denormal, which somebody may have told the machine to flush */
    uint32_t normal = (rest << 13) + (exponent == 0x7c00 ? 0x70000000 : 0x38000000);
    float size = exponent ? of_bits(normal) : small;
    return sign ? -size : size;
}

INLINE double load(const void *x, int64_t i, const int dtype) {
    switch (dtype) {
    case FLOAT32: return ((const float *)x)[i];
    case FLOAT64: return ((const double *)x)[i];
    case BFLOAT16: return of_bits((uint32_t)((const uint16_t *)x)[i] << 16);
    default: return of_half(((const uint16_t *)x)[i]);
    }
}

/* ---------------------------------------------------------------- work that several threads share */

/* As libgomp's GOMP_parallel: the threads are those which torch has already. */
typedef void (*Fork)(void (*run)(void *), void *data, unsigned threads, unsigned flags);

typedef struct {
    void (*run)(void *job, int64_t part);
    void *job;
    int64_t parts;
    atomic_llong next;
} Work;

static void take_parts(void *data) {
    Work *work = data;
    int64_t part;
    while ((part = atomic_fetch_add(&work->next, 1)) < work->parts) work->run(work->job, part);
}

static void share(void (*run)(void *, int64_t), void *job, int64_t parts, Fork fork, int64_t threads) {
    Work work = {run, job, parts, 0};
    threads = threads < parts ? threads : parts;
    if (fork && threads > 1)
        fork(take_parts, &work, (unsigned)threads, 0);
    else
        take_parts(&work);
}

/* ---------------------------------------------------------------- parameters */

enum { PART = 1 << 16 };
/* A row whose squares sum to less has no gradient: float32 has no square of it. */
static const double DEAD = 1e-38;

typedef struct { double grad2, most, weight2, wrong, product; } Numbers;
typedef struct { int64_t parameter, from, to, row; uint8_t *dead; Numbers numbers; } Part;
typedef struct { const void *const *grads, *const *weights; int64_t dtype; Part *parts; } Parameters;

INLINE void add_entries(const void *grad, const void *weight, int64_t from, int64_t to, Numbers *n, const int dtype) {
    double grad2 = 0, most = 0, weight2 = 0, wrong = 0, product = 0;
#pragma omp simd reduction(+ : grad2, weight2, wrong, product) reduction(max : most)
    for (int64_t i = from; i < to; i++) {
        double g = load(grad, i, dtype), w = load(weight, i, dtype), size = fabs(g);
        double finite = size < INFINITY ? size : 0.0;
        wrong += size < INFINITY ? 0.0 : 1.0;
        grad2 += finite * finite;
        most = finite > most ? finite : most;
        weight2 += w * w;
        product += g * w;
    }
    n->grad2 += grad2, n->weight2 += weight2, n->wrong += wrong, n->product += product;
    n->most = most > n->most ? most : n->most;
}

INLINE void measure_part(const void *grad, const void *weight, Part *part, const int dtype) {
    for (int64_t at = part->from; at < part->to; at += part->row) {
        Numbers own = {0, part->numbers.most, 0, 0, 0}, *all = &part->numbers;
        add_entries(grad, weight, at, at + part->row, &own, dtype);
        if (part->dead) part->dead[(at - part->from) / part->row] = own.grad2 < DEAD && own.wrong == 0;
        all->grad2 += own.grad2, all->weight2 += own.weight2, all->wrong += own.wrong, all->product += own.product;
        all->most = own.most;
    }
}

FOR_EACH_MACHINE static void run_part(void *job, int64_t index) {
    Parameters *of = job;
    Part *part = &of->parts[index];
    const void *grad = of->grads[part->parameter], *weight = of->weights[part->parameter];
    switch (of->dtype) {
    case FLOAT32: measure_part(grad, weight, part, FLOAT32); break;
    case FLOAT64: measure_part(grad, weight, part, FLOAT64); break;
    case BFLOAT16: measure_part(grad, weight, part, BFLOAT16); break;
    default: measure_part(grad, weight, part, FLOAT16);
    }
}

/* The numbers of parameters and their gradients: out is [5, count]; dead has a byte for each row that is looked at, of
   all parameters one after another. Returns 0, or 1 where there is no memory for it. */
int parameters(int64_t count, const void *const *grads, const void *const *weights, const int64_t *lengths,
               const int64_t *rows, int64_t dtype, double *out, uint8_t *dead, Fork fork, int64_t threads) {
    int64_t most = 0, parts = 0;
    for (int64_t p = 0; p < count; p++) most += lengths[p] / PART + 1 + (rows[p] > 1 ? rows[p] : 0);
    Part *all = calloc((size_t)(most ? most : 1), sizeof *all);
    if (!all) return 1;
    for (int64_t p = 0; p < count; p++) {
        int64_t row = rows[p] ? lengths[p] / rows[p] : PART, each = row < PART ? PART / row * row : row;
        for (int64_t from = 0; from < lengths[p]; from += each) {
            int64_t to = from + each < lengths[p] ? from + each : lengths[p];
            Part part = {p, from, to, rows[p] ? row : to - from, rows[p] ? dead + from / row : 0, {0, 0, 0, 0, 0}};
            all[parts++] = part;
        }
        dead += rows[p];
    }
    Parameters job = {grads, weights, dtype, all};
    share(run_part, &job, parts, fork, threads);
    memset(out, 0, (size_t)(5 * count) * sizeof *out);
    for (int64_t i = 0; i < parts; i++) {
        const Numbers *n = &all[i].numbers;
        double *own = out + all[i].parameter;
        own[0] += n->grad2, own[2 * count] += n->weight2, own[3 * count] += n->wrong, own[4 * count] += n->product;
        own[count] = n->most > own[count] ? n->most : own[count];
    }
    free(all);
    return 0;
}

/* Entries of tensors, so many of each and so far apart, one tensor after another. */
void gather(int64_t count, const void *const *tensors, const int64_t *taken, const int64_t *distances, int64_t dtype,
            double *out) {
    for (int64_t t = 0; t < count; t++)
        for (int64_t i = 0; i < taken[t]; i++) *out++ = load(tensors[t], i * distances[t], (int)dtype);
}

/* ---------------------------------------------------------------- moments of vectors */

/* How a tensor lies, and what is taken of it. 1/sigma is of vectors with so many degrees of freedom. */
typedef struct {
    int64_t dtype, v0, e0, v1, e1, centered, sigma;
    double freedom, eps;
} Layout;

/* gain is [period, entries] where per_entry is set, else [period]: period vectors have one each, in turn. */
typedef struct {
    const Layout *at;
    const void *x;
    const double *gain;
    int64_t per_entry, period, parts;
    double *plain, *total, *norm, *ends; /* ends: [parts, 2] */
} Moments;

INLINE void add_plain(const void *x, int64_t at, int64_t n, double *total, double *square, double ends[2],
                      const int dtype) {
    double sum = 0, squares = 0, least = ends[0], most = ends[1];
#pragma omp simd reduction(+ : sum, squares) reduction(min : least) reduction(max : most)
    for (int64_t i = 0; i < n; i++) {
        double a = load(x, at + i, dtype);
        sum += a, squares += a * a;
        least = a < least ? a : least, most = a > most ? a : most;
    }
    *total += sum, *square += squares, ends[0] = least, ends[1] = most;
}

INLINE void add_centered(const void *x, int64_t at, int64_t n, double mean, double *square, const int dtype) {
    double squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; i++) {
        double a = load(x, at + i, dtype) - mean;
        squares += a * a;
    }
    *square += squares;
}

INLINE void add_gained(const void *x, int64_t at, int64_t n, const double *gain, double *plain, double *total,
                       double *square, const int dtype) {
    double own = 0, sum = 0, squares = 0;
#pragma omp simd reduction(+ : own, sum, squares)
    for (int64_t i = 0; i < n; i++) {
        double a = load(x, at + i, dtype), b = a * gain[i];
        own += a * a, sum += b, squares += b * b;
    }
    *plain += own, *total += sum, *square += squares;
}

/* Vectors whose entries lie together, or in runs: those from one to another. */
INLINE void measure_vectors(const Moments *m, int64_t from, int64_t to, double ends[2], const int dtype) {
    const Layout *at = m->at;
    int64_t run = at->e1, runs = at->e0;
    for (int64_t v = from; v < to; v++) {
        int64_t first = (v / at->v1 * runs * at->v1 + v % at->v1) * run, apart = at->v1 * run;
        double plain = 0, total = 0, square = 0;
        for (int64_t e = 0; e < runs; e++)
            if (m->per_entry)
                add_gained(m->x, first + e * apart, run, m->gain + (v % m->period * runs + e) * run, &plain, &total,
                           &square, dtype);
            else
                add_plain(m->x, first + e * apart, run, &total, &square, ends, dtype);
        if (at->centered) {
            square = 0;
            for (int64_t e = 0; e < runs; e++)
                add_centered(m->x, first + e * apart, run, total / (double)(runs * run), &square, dtype);
        }
        if (m->plain) m->plain[v] = m->per_entry ? plain : square;
        m->total[v] = total, m->norm[v] = square;
    }
}

/* Vectors that lie side by side, [v0, e0, v1]: some of each v0, for which the sums are the innermost loop. */
INLINE void measure_columns(const Moments *m, int64_t from, int64_t to, double ends[2], const int dtype) {
    const Layout *at = m->at;
    double least = ends[0], most = ends[1];
    for (int64_t outer = 0; outer < at->v0; outer++) {
        double *total = m->total + outer * at->v1, *square = m->norm + outer * at->v1;
        double *plain = m->plain ? m->plain + outer * at->v1 : 0;
        for (int64_t v = from; v < to; v++) total[v] = square[v] = 0;
        for (int64_t v = from; plain && v < to; v++) plain[v] = 0;
        for (int64_t pass = 0; pass <= (at->centered ? 1 : 0); pass++) {
            for (int64_t v = from; pass && v < to; v++) square[v] = 0;
            for (int64_t e = 0; e < at->e0; e++) {
                int64_t row = (outer * at->e0 + e) * at->v1;
                double gain = m->per_entry ? m->gain[e] : 1.0, each = 1.0 / (double)at->e0;
                if (pass) {
#pragma omp simd
                    for (int64_t v = from; v < to; v++) {
                        double a = load(m->x, row + v, dtype) - total[v] * each;
                        square[v] += a * a;
                    }
                    continue;
                }
#pragma omp simd reduction(min : least) reduction(max : most)
                for (int64_t v = from; v < to; v++) {
                    double a = load(m->x, row + v, dtype), b = a * gain;
                    total[v] += b, square[v] += b * b;
                    least = a < least ? a : least, most = a > most ? a : most;
                }
                for (int64_t v = from; plain && v < to; v++) {
                    double a = load(m->x, row + v, dtype);
                    plain[v] += a * a;
                }
            }
        }
    }
    ends[0] = least, ends[1] = most;
}

/* Whether vectors lie side by side. */
INLINE int in_columns(const Layout *at) { return at->e1 == 1 && at->v1 > 1; }

INLINE void measure(const Moments *m, int64_t from, int64_t to, double ends[2], const int dtype) {
    if (in_columns(m->at))
        measure_columns(m, from, to, ends, dtype);
    else
        measure_vectors(m, from, to, ends, dtype);
}

FOR_EACH_MACHINE static void run_moments(void *job, int64_t part) {
    const Moments *m = job;
    int64_t all = in_columns(m->at) ? m->at->v1 : m->at->v0 * m->at->v1;
    int64_t from = all * part / m->parts, to = all * (part + 1) / m->parts;
    double *ends = m->ends + 2 * part;
    ends[0] = INFINITY, ends[1] = -INFINITY;
    switch (m->at->dtype) {
    case FLOAT32: measure(m, from, to, ends, FLOAT32); break;
    case FLOAT64: measure(m, from, to, ends, FLOAT64); break;
    case BFLOAT16: measure(m, from, to, ends, BFLOAT16); break;
    default: measure(m, from, to, ends, FLOAT16);
    }
}

static double inverse_sigma(double norm, const Layout *at) {
    switch (at->sigma) {
    case EPS_AT_ROOT: return 1.0 / sqrt(norm * norm / at->freedom + at->eps);
    case EPS_AT_SIGMA: return 1.0 / (norm / sqrt(at->freedom) + at->eps);
    case EPS_AT_NORM: return sqrt(at->freedom) / (norm < at->eps ? at->eps : norm);
    default: return 1.0;
    }
}

enum { THREADS = 64, ALONE = 1 << 16 };

/* The moments of one phase of a call into its place of block, [8, N] and the ends of the input. */
FOR_EACH_MACHINE void moments(const Layout *at, const void *x, const double *gain, int64_t per_entry, int64_t period,
                              int64_t phase, double *block, Fork fork, int64_t threads) {
    int64_t n = at->v0 * at->v1, parts = n * at->e0 * at->e1 / ALONE;
    double *first = block + (phase == INPUT ? 0 : phase == GRAD_OUTPUT ? 4 : 6) * n, ends[2 * THREADS];
    threads = threads < THREADS ? threads : THREADS;
    parts = parts < threads ? parts : threads;
    parts = parts < n && parts > 1 ? parts : 1;
    Moments job = {at, x, gain, gain && per_entry, period, parts, phase == GRAD_OUTPUT ? first - n : 0, first,
                   first + n, ends};
    share(run_moments, &job, parts, fork, threads);
    int known = 1; /* whether no sum is NaN, which an entry that is NaN makes it */
    for (int64_t v = 0; v < n; v++) {
        double factor = gain && !per_entry ? gain[v % period] : 1.0;
        if (job.plain) job.plain[v] = sqrt(job.plain[v]);
        known &= job.total[v] == job.total[v];
        job.total[v] *= factor, job.norm[v] = sqrt(job.norm[v]) * fabs(factor);
    }
    if (phase != INPUT) return;
    for (int64_t v = 0; at->sigma && v < n; v++) block[2 * n + v] = inverse_sigma(job.norm[v], at);
    for (int64_t part = 1; part < parts; part++) {
        ends[0] = ends[2 * part] < ends[0] ? ends[2 * part] : ends[0];
        ends[1] = ends[2 * part + 1] > ends[1] ? ends[2 * part + 1] : ends[1];
    }
    block[8 * n] = known ? ends[0] : NAN, block[8 * n + 1] = known ? ends[1] : NAN;
}

/* Sums of calls over their vectors that are finite in all moments, as lens.statistics.columns takes them; how many
   vectors there are, and the ends of the input: [count, 16]. */
FOR_EACH_MACHINE void sums(int64_t count, const double *const *blocks, const int64_t *vectors, double *out) {
    for (int64_t c = 0; c < count; c++, out += 16) {
        const int64_t n = vectors[c];
        const double *m = blocks[c];
        double some = 0, x1 = 0, inverse = 0, x2 = 0, xx = 0, oo = 0, g2 = 0, gg = 0, i2 = 0, ii = 0;
        double precise2 = 0, precise = 0, scaled = 0;
#pragma omp simd reduction(+ : some, x1, inverse, x2, xx, oo, g2, gg, i2, ii, precise2, precise, scaled)
        for (int64_t v = 0; v < n; v++) {
            double x = m[v], norm = m[n + v], s = m[2 * n + v], o = m[3 * n + v], g = m[4 * n + v], h = m[5 * n + v];
            double i = m[6 * n + v], k = m[7 * n + v], all = x + norm + s + o + g + h + i + k;
            int finite = fabs(all) < INFINITY;
            x = finite ? x : 0, norm = finite ? norm : 0, s = finite ? s : 0, o = finite ? o : 0;
            g = finite ? g : 0, h = finite ? h : 0, i = finite ? i : 0, k = finite ? k : 0;
            some += finite ? 1.0 : 0.0, x1 += x, inverse += s;
            x2 += x * x, xx += norm * norm, oo += o * o, g2 += g * g, gg += h * h, i2 += i * i, ii += k * k;
            precise2 += g * g * (s * s), precise += h * h * (s * s), scaled += k * k / (s > 0 ? s * s : 1.0);
        }
        const double found[16] = {some, x1, inverse, x2, xx, oo, g2, gg, i2, ii, precise2, precise, scaled,
                                  (double)n, m[8 * n], m[8 * n + 1]};
        memcpy(out, found, sizeof found);
    }
}
