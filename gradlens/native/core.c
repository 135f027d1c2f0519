/* Sums over tensors in the host's memory, each in one call and one look at every entry.

   Knows neither torch nor Python: addresses, sizes, kinds of number. A tensor is seen as [v0, e0, v1, e1] in the order of
   memory, v counting vectors and e the entries of a vector. Blocks of entries are summed in float32, the sums of blocks in
   double; what has no square in float32 is summed in double throughout. */
#include "numbers.h"

enum { INPUT, GRAD_OUTPUT, GRAD_INPUT };
enum { NO_SIGMA, EPS_AT_ROOT, EPS_AT_SIGMA, EPS_AT_NORM, UNSCALED };

/* ---------------------------------------------------------------- parameters */

enum { PART = 1 << 16 };
/* A row whose squares sum to less has no gradient: float32 has no square of it. */
static const double DEAD = 1e-38;

typedef struct { double grad2, most, weight2, wrong, product; } Numbers;
typedef struct { int64_t parameter, from, to, row; uint8_t *dead; Numbers numbers; } Part;
typedef struct { const void *const *grads, *const *weights; int64_t dtype; Part *parts; } Parameters;

INLINE void add_exactly(const void *grad, const void *weight, int64_t from, int64_t to, Numbers *n, const int dtype) {
    double grad2 = 0, most = n->most, weight2 = 0, wrong = 0, product = 0;
#pragma omp simd reduction(+ : grad2, weight2, wrong, product) reduction(max : most)
    for (int64_t i = from; i < to; i++) {
        double g = load(grad, i, dtype), w = load(weight, i, dtype), size = fabs(g);
        double finite = size < INFINITY ? size : 0.0;
        wrong += size < INFINITY ? 0.0 : 1.0;
        grad2 += finite * finite, weight2 += w * w, product += g * w;
        most = finite > most ? finite : most;
    }
    n->grad2 += grad2, n->weight2 += weight2, n->wrong += wrong, n->product += product, n->most = most;
}

INLINE void add_entries(const void *grad, const void *weight, int64_t from, int64_t to, Numbers *n, const int dtype) {
    for (int64_t end; from < to; from = end) {
        float grad2 = 0, most = 0, weight2 = 0, product = 0;
        end = to - from < BLOCK ? to : from + BLOCK;
        if (dtype != FLOAT64) {
#pragma omp simd reduction(+ : grad2, weight2, product) reduction(max : most)
            for (int64_t i = from; i < end; i++) {
                float g = load32(grad, i, dtype), w = load32(weight, i, dtype), size = fabsf(g);
                grad2 += g * g, weight2 += w * w, product += g * w;
                most = size > most ? size : most;
            }
        }
        if ((held(grad2) || (grad2 == 0 && most == 0)) && held(weight2)) {
            n->grad2 += grad2, n->weight2 += weight2, n->product += product;
            n->most = most > n->most ? most : n->most;
        } else
            add_exactly(grad, weight, from, end, n, dtype);
    }
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

/* gain, in float64 as x or else in float32, is [period, entries] where per_entry is set, else [period]: so many vectors
   have one each, in turn. */
typedef struct {
    const Layout *at;
    const void *x, *gain;
    int64_t per_entry, period, parts;
    double *plain, *total, *norm, *ends; /* ends: [parts, 2], where they are wanted */
} Moments;

typedef struct { double plain, total, square; } Sums;
enum { PLAIN, CENTERED, GAINED };

/* n entries from a place on: as they are, less the mean, or times the gain. */
INLINE void add_run(const void *x, int64_t at, int64_t n, double mean, const void *gain, Sums *s, const int dtype,
                    const int how) {
    int64_t from = 0;
    for (int64_t half; dtype != FLOAT64 && from + 2 <= n; from += 2 * half) {
        float plain = 0, total = 0, square = 0, middle = (float)mean;
        half = n - from < 2 * BLOCK ? (n - from) / 2 : BLOCK;
#pragma omp simd reduction(+ : plain, total, square)
        for (int64_t i = from; i < from + half; i++) { /* two at once: a sum waits for the one before */
            float a = load32(x, at + i, dtype), b = load32(x, at + half + i, dtype), c = a, d = b;
            if (how == GAINED) c = a * ((const float *)gain)[i], d = b * ((const float *)gain)[half + i];
            if (how == GAINED) plain += a * a + b * b;
            if (how == CENTERED) c = a - middle, d = b - middle;
            if (how != CENTERED) total += c + d;
            square += c * c + d * d;
        }
        if (!held(square) || (how == GAINED && !held(plain))) break;
        s->plain += how == GAINED ? plain : square, s->total += total, s->square += square;
    }
    double plain = 0, total = 0, square = 0;
#pragma omp simd reduction(+ : plain, total, square)
    for (int64_t i = from; i < n; i++) {
        double a = load(x, at + i, dtype), b = a;
        if (how == GAINED) b = a * load(gain, i, dtype == FLOAT64 ? FLOAT64 : FLOAT32);
        if (how == CENTERED) b = a - mean;
        plain += a * a, total += b, square += b * b;
    }
    s->plain += plain, s->total += total, s->square += square;
}

/* Vectors whose entries lie together, or in runs: those from one to another. */
INLINE void measure_vectors(const Moments *m, int64_t from, int64_t to, const int dtype) {
    const Layout *at = m->at;
    int64_t run = at->e1, runs = at->e0, size = dtype == FLOAT64 ? 8 : 4;
    for (int64_t v = from; v < to; v++) {
        int64_t first = (v / at->v1 * runs * at->v1 + v % at->v1) * run, apart = at->v1 * run;
        Sums s = {0, 0, 0}, centered = {0, 0, 0};
        for (int64_t e = 0; e < runs; e++)
            if (m->per_entry) {
                const char *gain = (const char *)m->gain + (v % m->period * runs + e) * run * size;
                add_run(m->x, first + e * apart, run, 0, gain, &s, dtype, GAINED);
            } else
                add_run(m->x, first + e * apart, run, 0, 0, &s, dtype, PLAIN);
        double mean = s.total / (double)(runs * run);
        for (int64_t e = 0; at->centered && e < runs; e++)
            add_run(m->x, first + e * apart, run, mean, 0, &centered, dtype, CENTERED);
        if (m->plain) m->plain[v] = s.plain;
        m->total[v] = s.total, m->norm[v] = at->centered ? centered.square : s.square;
    }
}

/* Vectors that lie side by side, [v0, e0, v1]: some of each v0, for which the sums are the innermost loop. */
INLINE void measure_columns(const Moments *m, int64_t from, int64_t to, const int dtype) {
    const Layout *at = m->at;
    for (int64_t outer = 0; outer < at->v0; outer++) {
        double *total = m->total + outer * at->v1, *square = m->norm + outer * at->v1;
        const double each = 1.0 / (double)at->e0;
        for (int64_t pass = 0; pass <= (at->centered != 0); pass++) {
            for (int64_t v = from; v < to; v++) square[v] = 0, total[v] = pass ? total[v] : 0;
            for (int64_t e = 0, row = outer * at->e0 * at->v1; e < at->e0; e++, row += at->v1)
#pragma omp simd
                for (int64_t v = from; v < to; v++) {
                    double a = load(m->x, row + v, dtype), b = pass ? a - total[v] * each : a;
                    total[v] += pass ? 0 : a, square[v] += b * b;
                }
        }
        for (int64_t v = from; m->plain && v < to; v++) m->plain[outer * at->v1 + v] = square[v];
    }
}

INLINE void find_ends(const void *x, int64_t from, int64_t to, double ends[2], const int dtype) {
    double least = INFINITY, most = -INFINITY;
    float low = INFINITY, high = -INFINITY;
    int64_t half = dtype == FLOAT64 ? 0 : (to - from) / 2;
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int64_t i = from; i < from + half; i++) {
        float a = load32(x, i, dtype), b = load32(x, half + i, dtype), less = a < b ? a : b, more = a > b ? a : b;
        low = less < low ? less : low, high = more > high ? more : high;
    }
#pragma omp simd reduction(min : least) reduction(max : most)
    for (int64_t i = from + 2 * half; i < to; i++) {
        double a = load(x, i, dtype);
        least = a < least ? a : least, most = a > most ? a : most;
    }
    ends[0] = low < least ? low : least, ends[1] = high > most ? high : most;
}

INLINE void measure(const Moments *m, int64_t part, const int dtype) {
    int64_t vectors = m->at->v0 * m->at->v1, entries = vectors * m->at->e0 * m->at->e1, parts = m->parts;
    if (m->at->e1 == 1 && m->at->v1 > 1)
        measure_columns(m, m->at->v1 * part / parts, m->at->v1 * (part + 1) / parts, dtype);
    else
        measure_vectors(m, vectors * part / parts, vectors * (part + 1) / parts, dtype);
    if (m->ends) find_ends(m->x, entries * part / parts, entries * (part + 1) / parts, m->ends + 2 * part, dtype);
}

FOR_EACH_MACHINE static void run_moments(void *job, int64_t part) {
    const Moments *m = job;
    switch (m->at->dtype) {
    case FLOAT32: measure(m, part, FLOAT32); break;
    case FLOAT64: measure(m, part, FLOAT64); break;
    case BFLOAT16: measure(m, part, BFLOAT16); break;
    default: measure(m, part, FLOAT16);
    }
}

static double inverse_sigma(double norm, const Layout *at) {
    if (at->sigma == EPS_AT_ROOT) return 1.0 / sqrt(norm * norm / at->freedom + at->eps);
    if (at->sigma == EPS_AT_SIGMA) return 1.0 / (norm / sqrt(at->freedom) + at->eps);
    return at->sigma == EPS_AT_NORM ? sqrt(at->freedom) / (norm < at->eps ? at->eps : norm) : 1.0;
}

enum { THREADS = 64, ALONE = 1 << 15 };

/* The moments of one phase of a call into its place of block, [8, N] and the ends of the input. */
FOR_EACH_MACHINE void moments(const Layout *at, const void *x, const void *gain, int64_t per_entry, int64_t period,
                              int64_t phase, double *block, Fork fork, int64_t threads) {
    int64_t n = at->v0 * at->v1, parts = n * at->e0 * at->e1 / ALONE;
    double *first = block + (phase == INPUT ? 0 : phase == GRAD_OUTPUT ? 4 : 6) * n, ends[2 * THREADS];
    threads = threads < THREADS ? threads : THREADS;
    parts = parts < threads ? parts : threads;
    parts = parts < n && parts > 1 ? parts : 1;
    Moments job = {at, x, gain, gain && per_entry, period, parts, phase == GRAD_OUTPUT ? first - n : 0, first,
                   first + n, phase == INPUT ? ends : 0};
    share(run_moments, &job, parts, fork, threads);
    int known = 1; /* whether no sum is NaN, which an entry that is NaN makes it */
    for (int64_t v = 0; v < n; v++) {
        double factor = gain && !per_entry ? load(gain, v % period, at->dtype == FLOAT64 ? FLOAT64 : FLOAT32) : 1.0;
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
