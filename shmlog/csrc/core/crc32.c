/* Large data by carry-less multiplication where the processor has it: V. Gopal
 * et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
 * Instruction", Intel, 2009; the constants are those of its section on
 * bit-reflected polynomials.
 *
 * All else by slicing by 16: sixteen table look-ups for sixteen bytes, which do
 * not depend on each other: M. E. Kounavis and F. L. Berry, "Novel Table
 * Lookup-Based Algorithms for High-Performance CRC Generation", IEEE
 * Transactions on Computers 57(11), 2008. */
#include "crc32.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_FOLDING 1
#include <immintrin.h>
#else
#define HAS_FOLDING 0
#endif

enum { SLICES = 16, FOLD_BYTES = 64 };

static uint32_t table[SLICES][256];
static bool may_fold;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void prepare(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1u ? UINT32_C(0xedb88320) : 0u);
        }
        table[0][byte] = crc;
    }
    for (int slice = 1; slice < SLICES; slice++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = table[slice - 1][byte];
            table[slice][byte] = crc >> 8 ^ table[0][crc & 0xffu];
        }
    }
#if HAS_FOLDING
    may_fold = __builtin_cpu_supports("pclmul");
#endif
}

static uint32_t four(int slice, uint32_t word)
{
    return table[slice + 3][word & 0xffu] ^ table[slice + 2][word >> 8 & 0xffu] ^
           table[slice + 1][word >> 16 & 0xffu] ^ table[slice][word >> 24];
}

/* The remainder that `crc` becomes, without the inversions at both ends. */
static uint32_t slice_bytes(uint32_t crc, const unsigned char *next, size_t bytes)
{
    while (bytes >= SLICES) {
        uint32_t word[4];
        memcpy(word, next, sizeof word);
        crc = four(12, word[0] ^ crc) ^ four(8, word[1]) ^ four(4, word[2]) ^ four(0, word[3]);
        next += SLICES;
        bytes -= SLICES;
    }
    while (bytes--) {
        crc = crc >> 8 ^ table[0][(crc ^ *next++) & 0xffu];
    }
    return crc;
}

#if HAS_FOLDING
__attribute__((target("pclmul"))) static __m128i fold(__m128i value, __m128i by, const unsigned char *next)
{
    __m128i low = _mm_clmulepi64_si128(value, by, 0x00);
    __m128i high = _mm_clmulepi64_si128(value, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), _mm_loadu_si128((const __m128i *)(const void *)next));
}

/* The same for whole blocks of FOLD_BYTES, at least one. */
__attribute__((target("pclmul"))) static uint32_t fold_blocks(uint32_t crc, const unsigned char *next, size_t bytes)
{
    const __m128i by_block = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i by_lane = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    unsigned char rest[FOLD_BYTES];
    __m128i lane[4];
    for (size_t i = 0; i < 4; i++) {
        lane[i] = _mm_loadu_si128((const __m128i *)(const void *)(next + 16 * i));
    }
    lane[0] = _mm_xor_si128(lane[0], _mm_cvtsi32_si128((int)crc));
    while (bytes -= FOLD_BYTES) {
        next += FOLD_BYTES;
        for (size_t i = 0; i < 4; i++) {
            lane[i] = fold(lane[i], by_block, next + 16 * i);
        }
    }
    memcpy(rest, lane, sizeof rest);
    for (size_t i = 1; i < 4; i++) {
        lane[0] = fold(lane[0], by_lane, rest + 16 * i);
    }
    memcpy(rest, lane, 16);
    return slice_bytes(0, rest, 16);
}
#endif

uint32_t shmlog_crc32(uint32_t crc, const void *data, size_t bytes)
{
    const unsigned char *next = data;
    pthread_once(&once, prepare);
    crc = ~crc;
#if HAS_FOLDING
    if (may_fold && bytes >= FOLD_BYTES) {
        size_t blocks = bytes - bytes % FOLD_BYTES;
        crc = fold_blocks(crc, next, blocks);
        next += blocks;
        bytes -= blocks;
    }
#endif
    return ~slice_bytes(crc, next, bytes);
}
