/* Reading numbers of any kind, what float32 holds of their squares, and sharing work between threads. */
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

INLINE float of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* No denormal is made, which somebody may have told the machine to flush. */
INLINE float of_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half & 0x7c00, rest = half & 0x7fff;
    float small = (float)(int32_t)rest * 0x1p-24f;
    uint32_t normal = (rest << 13) + (exponent == 0x7c00 ? 0x70000000 : 0x38000000);
    float size = exponent ? of_bits(normal) : small;
    return sign ? -size : size;
}

/* An entry that is no float64. */
INLINE float load32(const void *x, int64_t i, const int dtype) {
    if (dtype == FLOAT32) return ((const float *)x)[i];
    uint16_t half = ((const uint16_t *)x)[i];
    return dtype == BFLOAT16 ? of_bits((uint32_t)half << 16) : of_half(half);
}

INLINE double load(const void *x, int64_t i, const int dtype) {
    return dtype == FLOAT64 ? ((const double *)x)[i] : load32(x, i, dtype);
}

/* Entries that are summed in float32. */
enum { BLOCK = 1024 };

/* Whether float32 has held a sum of squares, but for what does not count. */
INLINE int held(double squares) { return squares > 1e-24 && squares < 1e36; }

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
