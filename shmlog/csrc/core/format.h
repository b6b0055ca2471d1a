/* The shared-memory segment: the contract between every producer, the flusher
 * and their successors. Written before the code; checked by static asserts.
 *
 * LAYOUT
 *
 *   0                 shmlog_header (one page)
 *   names_offset      name table: index, entries, text
 *   lanes_offset      shmlog_lane_header, one per lane
 *   slots_offset      slots of lane 0, lane 1, ... (lane_slots * 32 bytes each)
 *
 * The header, the name table and the lane headers are allocated when the
 * segment is made; the slots of a lane when it is allotted for the first time.
 * Memory is zero before its first use.
 *
 * VALIDITY
 *
 *   A segment is valid if and only if `magic` matches; it is stored last.
 *   A slot at position p is committed if and only if the upper half of its
 *   commit word is the lap of p plus one; it begins a unit if, besides, its
 *   MEMBER flag is clear.
 *
 * SHARED WORDS
 *
 *   word                  written by   read by     order            pair
 *   --------------------  -----------  ----------  ---------------  -------
 *   slot.commit           producer     flusher     release/acquire  COMMIT
 *   lane.tail             flusher      producer    release/acquire  RECLAIM
 *   lane.allotted         who locks it both        release/acquire  ALLOT
 *   name index            producer     everybody   release/acquire  NAME
 *   header.magic          creator      everybody   release/acquire  CREATE
 *   lane.head             producer     monitors    relaxed          (hint)
 *   lane.dropped ...      producer     monitors    relaxed          (counters)
 *   header.sleeping       flusher      producer    relaxed          (hint)
 *   header.disk_error     flusher      producer    relaxed          (hint)
 *   header.ended_by       its maker    flusher     relaxed          (read after the maker's death)
 *   header.likely_status  owners       flusher     release/acquire  CONTROL
 *   header.exiting        owners       flusher     release/acquire  CONTROL
 *   header.control words  see shmlog_header         release/acquire  CONTROL
 *   lane.sync_request     producer     flusher     release/acquire  SYNC
 *   lane.synced           flusher      producer    release/acquire  SYNC
 *   lane.limit, lane.cut  both, below  both        full fences      CUT
 *   lane.follows          who locks it owner       full fences      CUT
 *   lane.final            both, once   both        release/acquire  FINAL
 *
 * COMMIT   everything stored in a slot before the release of its commit word is
 *          visible to the flusher after its acquire. The commit word is the only
 *          proof that a record exists.
 * RECLAIM  everything the flusher loaded from a slot happened before the
 *          producer may store into that slot again.
 * ALLOT    the lane's memory is allocated before anybody looks at it.
 * NAME     the entry and its text are complete before the index points there.
 * CREATE   the whole header is complete before the magic.
 * CONTROL  what a request or an answer announces is done before it is seen.
 * SYNC     what was committed before the request is in the log that is fsynced
 *          before the answer.
 *
 * CUT      the end of a follower's part. Whoever ends it, its owner at finish or the flusher at the
 *          close, stores `cut`, then zero in `limit`; the producer stores `limit`, then looks at
 *          `cut`. A full fence stands between in both, so that one of them sees the other. The
 *          producer looks at `limit` before it writes a unit and after it has committed it: the
 *          first look keeps what is logged after the cut out of the run, the second finds the unit
 *          that was under way. No fence stands before the second look; the flusher has every
 *          processor pass one (membarrier) after the cut and before its last drain. A cut says that
 *          there is something to look at, no more: it may have been meant for a follower that had
 *          the lane before. `closed`, or the owner's beacon, tells whether the part has ended.
 * FINAL    where the lane ends in this run, decided once, by whoever comes first: the producer that
 *          finds itself cut, behind its last unit, or the flusher that closes the run, behind the
 *          last unit that it has drained. The other one goes by it: the flusher drains up to there,
 *          the producer counts what it has committed behind it as dropped.
 *
 * head and tail are positions: they count slots since the lane was made, never
 * wrap (2^64), and become an index only in shmlog_slot_at(). Head is where the
 * producer writes, tail is where the flusher takes, as in the Linux perf ring;
 * Aeron and io_uring name them the other way round.
 */
#ifndef SHMLOG_FORMAT_H
#define SHMLOG_FORMAT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHMLOG_MAGIC UINT64_C(0x31474f4c4d485331) /* "1SHMLOG1" */
#define SHMLOG_VERSION 4u
#define SHMLOG_LINE 128u
#define SHMLOG_PAGE 4096u

#define SHMLOG_LANES_MAX 4096u
#define SHMLOG_FIRST_LANE_MAX (1u << 30) /* lanes are signed 32-bit numbers in Parquet */
#define SHMLOG_MAX_WAIT_NS (3600 * INT64_C(1000000000))
#define SHMLOG_LANE_SLOTS_MIN 64u
#define SHMLOG_LANE_SLOTS_MAX (1u << 26)

#define SHMLOG_NAMES_MAX 16384u
#define SHMLOG_NAME_INDEX (2u * SHMLOG_NAMES_MAX)
#define SHMLOG_NAME_BYTES_MAX 1024u
#define SHMLOG_NAME_TEXT_BYTES (1u << 20)

#define SHMLOG_RUN_DIR_BYTES 2000u
#define SHMLOG_OWNER_BYTES_MAX 504u
#define SHMLOG_DATA_BYTES 24u
#define SHMLOG_GAP_SLOTS 3u

/* Larger numbers are nonsense; sums of a few smaller ones fit in 64 bits. */
#define SHMLOG_COUNT_MAX (UINT64_C(1) << 56)

/* Bytes of the segment file that carry open-file-description locks. */
#define SHMLOG_LOCK_FLUSHER 0
#define SHMLOG_LOCK_MEMBER 1
#define SHMLOG_LOCK_START 2
#define SHMLOG_LOCK_LANE 16

enum shmlog_kind {
    SHMLOG_FLOAT = 1,
    SHMLOG_INT = 2,
    SHMLOG_BOOL = 3,
    SHMLOG_TEXT = 4,
    SHMLOG_LONGTEXT = 5,
    SHMLOG_ROW = 6,
    SHMLOG_EVENT = 7,
    SHMLOG_OWNER = 8,
    SHMLOG_GAP = 9,
    SHMLOG_DATA = 31
};

/* MEMBER: it stands behind a unit's header. FILE: its bytes are the path of a file. GIVEN: the caller gave the time of
 * the record, and `ts` is that, in microseconds since 1970. */
enum { SHMLOG_MEMBER = 1, SHMLOG_FILE = 2, SHMLOG_GIVEN = 4 };

/* Why a record was dropped. The names are in docs/format.md. */
enum shmlog_reason {
    SHMLOG_DROP_FULL,
    SHMLOG_DROP_NAMES,
    SHMLOG_DROP_LARGE,
    SHMLOG_DROP_LANE,
    SHMLOG_DROP_CLOSED,
    SHMLOG_DROP_DISK,
    SHMLOG_REASONS
};

enum { SHMLOG_CLOCK_MONOTONIC = 0, SHMLOG_CLOCK_TSC = 1 };

/* What the flusher is doing; 0 in fresh memory. */
enum { SHMLOG_FLUSHER_STARTING = 0, SHMLOG_FLUSHER_RUNNING = 1 };

typedef struct {
    uint64_t ts;
    uint64_t value;
    int64_t step;
    _Atomic uint64_t commit;
} shmlog_slot;

typedef struct {
    int64_t ticks;
    int64_t mono_ns;
    int64_t utc_ns;
} shmlog_anchor;

/* What the run's processes do when there is no room. */
typedef struct {
    int64_t max_wait_ns; /* patience while nothing gets done */
    uint32_t wait;       /* 0: drop at once */
    uint32_t strict;     /* 1: a drop raises */
} shmlog_drop_policy;

/* What the creator of a segment wrote once. Anybody can scribble on it: who opens a segment checks it, and goes by
 * a copy from then on. */
typedef struct {
    uint32_t version;
    uint32_t page;
    uint64_t segment_bytes;
    uint32_t lanes;
    uint32_t lane_slots;
    uint64_t names_offset;
    uint64_t lanes_offset;
    uint64_t slots_offset;
    uint32_t clock;
    uint32_t first_lane; /* number of lane 0 in the files: those of earlier attempts come before it */
    shmlog_anchor anchor;
    char run_id[72];
    char run_dir[SHMLOG_RUN_DIR_BYTES]; /* empty if longer; for people and clean-up */
    shmlog_drop_policy drop_policy;
} shmlog_constants;

typedef struct {
    _Atomic uint64_t magic;
    shmlog_constants constants;

    /* CONTROL, written by producers: a number that grows with each request. */
    _Alignas(SHMLOG_LINE) _Atomic uint32_t finish_request;
    _Atomic uint32_t finish_status; /* shmlog_finish_merge() of those asked for */
    /* Drops of processes that own no lane, in all attempts: the only shared read-modify-write. */
    _Atomic uint64_t unlaned[SHMLOG_REASONS];
    _Atomic uint32_t ended_by; /* number of the signal that has ended the run's maker, or 0; see signals.h */
    /* Of owners whose status only the end of their process decides; see exits.h. */
    _Atomic uint32_t likely_status; /* shmlog_finish_merge() of what each has likely, until it is decided */
    _Atomic uint32_t exiting;       /* how many have not decided yet */
    _Atomic uint64_t ended_us;      /* UTC when the last owner that said so began to finish; 0: nobody has */

    /* CONTROL, written by the flusher. */
    _Alignas(SHMLOG_LINE) _Atomic uint32_t flusher_state;
    _Atomic uint32_t sleeping;
    _Atomic uint32_t finish_done; /* last finish_request that was carried out */
    _Atomic uint32_t closed;      /* nobody may attach any more */
    _Atomic uint64_t progress;    /* grows while the flusher gets anything done; see shmlog_count_sealing() */
    _Atomic uint64_t started_ns;  /* CLOCK_MONOTONIC when a flusher was last started */
    _Atomic uint32_t disk_error;  /* errno for which the log can't be written just now, or 0 */
    _Atomic uint64_t lost;        /* records that are neither in the files nor counted as dropped */
    _Atomic uint32_t starts;      /* how many flushers were started; written by who starts one */
    _Atomic uint64_t sealing;     /* grows while it gets anything done but drain */
    _Atomic uint32_t finish_noted; /* last finish_request of which it is known what it has to wait for */
} shmlog_header;

typedef struct {
    /* Written by the lane's owner. */
    _Alignas(SHMLOG_LINE) _Atomic uint64_t head; /* hint */
    _Atomic uint64_t dropped[SHMLOG_REASONS];
    _Atomic uint64_t sync_request; /* position that is to be fsynced */
    _Atomic uint64_t waits;
    _Atomic uint64_t waited_ns;
    _Atomic uint64_t limit;   /* up to here it may write without looking at tail; 0: not at all */
    _Atomic uint64_t follows; /* token of the owner of the run whose follower it is; 0: it is an owner itself */
    _Atomic uint32_t cut;     /* its part has ended; stored by that owner, or by the flusher */

    /* Written by the flusher. */
    _Alignas(SHMLOG_LINE) _Atomic uint64_t tail;
    _Atomic uint64_t synced; /* position up to which the log is fsynced */
    _Atomic uint64_t gapped; /* drops that a GAP in the log has told */
    _Atomic uint32_t damaged;
    _Atomic uint64_t told[SHMLOG_REASONS]; /* with `final`: the drops that its last GAP tells */
    /* Of what lies below `tail`, for another flusher that finds less than that in the logs: */
    _Atomic uint64_t seq;     /* the number of records that were offered */
    _Atomic uint32_t tenancy; /* the number of owners */

    /* Written when the lane is allotted, and when it ends. */
    _Alignas(SHMLOG_LINE) _Atomic uint32_t allotted; /* 1: its slots are allocated */
    _Atomic uint64_t final; /* shmlog_final(); 0: not decided */
} shmlog_lane_header;

typedef struct {
    uint32_t offset; /* of the text */
    uint32_t bytes;
} shmlog_name_entry;

typedef struct {
    _Atomic uint32_t count;      /* ids given out */
    _Atomic uint32_t text_bytes; /* bytes of text given out */
    _Alignas(SHMLOG_LINE) _Atomic uint32_t index[SHMLOG_NAME_INDEX]; /* id + 1; 0: free */
    shmlog_name_entry entries[SHMLOG_NAMES_MAX];
    char text[SHMLOG_NAME_TEXT_BYTES];
} shmlog_name_table;

_Static_assert(sizeof(shmlog_slot) == 32, "two slots to a cache line");
_Static_assert(offsetof(shmlog_slot, value) == 8, "slot.value");
_Static_assert(offsetof(shmlog_slot, step) == 16, "slot.step");
_Static_assert(offsetof(shmlog_slot, commit) == 24, "slot.commit");
_Static_assert(sizeof(shmlog_anchor) == 24, "anchor");
_Static_assert(offsetof(shmlog_header, constants.segment_bytes) == 16, "header.segment_bytes");
_Static_assert(offsetof(shmlog_header, constants.anchor) == 64, "header.anchor");
_Static_assert(offsetof(shmlog_header, constants.run_id) == 88, "header.run_id");
_Static_assert(offsetof(shmlog_header, constants.drop_policy) == 2160, "header.drop_policy");
_Static_assert(offsetof(shmlog_header, finish_request) == 2176, "header: producers' line");
_Static_assert(offsetof(shmlog_header, ended_by) == 2232, "header.ended_by");
_Static_assert(offsetof(shmlog_header, likely_status) == 2236, "header.likely_status");
_Static_assert(offsetof(shmlog_header, exiting) == 2240, "header.exiting");
_Static_assert(offsetof(shmlog_header, ended_us) == 2248, "header.ended_us");
_Static_assert(offsetof(shmlog_header, flusher_state) == 2304, "header: flusher's line");
_Static_assert(sizeof(shmlog_header) <= SHMLOG_PAGE, "the header is one page");
_Static_assert(offsetof(shmlog_lane_header, tail) == 128, "lane: flusher's line");
_Static_assert(offsetof(shmlog_lane_header, allotted) == 256, "lane: cold line");
_Static_assert(sizeof(shmlog_lane_header) == 384, "lane header");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "32-bit atomics must be lock-free");

static inline uint64_t shmlog_commit_word(uint64_t position, uint32_t lane_slots_shift, uint32_t name_id,
                                          unsigned kind, unsigned flags)
{
    return ((position >> lane_slots_shift) + 1) << 32 | (uint64_t)name_id << 8 | kind << 3 | flags;
}

static inline uint32_t shmlog_commit_name(uint64_t commit) { return (uint32_t)(commit >> 8) & 0xffffffu; }
static inline unsigned shmlog_commit_kind(uint64_t commit) { return (unsigned)(commit >> 3) & 31u; }
static inline unsigned shmlog_commit_flags(uint64_t commit) { return (unsigned)commit & 7u; }

/* Statuses that owners finish with, the better before the worse, and whether the maker of the run is among
 * them: without it the run has no status of its own. */
enum { SHMLOG_SUCCESS = 1, SHMLOG_CANCELLED = 2, SHMLOG_FAILED = 3, SHMLOG_CRASHED = 4, SHMLOG_BY_MAKER = 8 };
static inline uint32_t shmlog_finish_merge(uint32_t old, uint32_t status, bool by_maker)
{
    uint32_t known = old & (SHMLOG_BY_MAKER - 1);
    return (known > status ? known : status) | (old & SHMLOG_BY_MAKER) | (by_maker ? SHMLOG_BY_MAKER : 0);
}

/* Tell that the flusher gets on with what is not draining: who waits for a finish must not go by what others log. */
static inline void shmlog_count_sealing(shmlog_header *header)
{
    /* relaxed: only their growth is looked at. */
    atomic_fetch_add_explicit(&header->progress, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&header->sealing, 1, memory_order_relaxed); /* relaxed: as above */
}

/* The end of a lane, and who has decided it. */
enum { SHMLOG_FINAL_SET = 1, SHMLOG_FINAL_BY_FLUSHER = 2 };
static inline uint64_t shmlog_final(uint64_t position, unsigned by) { return position << 2 | by | SHMLOG_FINAL_SET; }
static inline uint64_t shmlog_final_position(uint64_t final) { return final >> 2; }

/* Largest unit of records, in slots: more is a sequence of units, or a file. A frame has room for it. */
static inline uint32_t shmlog_unit_max(uint32_t lane_slots) { return lane_slots / 4; }

/* `value` of a header slot: how many slots the unit has, and how many bytes or records. */
static inline uint64_t shmlog_extent(uint32_t slots, uint32_t count) { return (uint64_t)count << 32 | slots; }
static inline uint32_t shmlog_extent_slots(uint64_t value) { return (uint32_t)value; }
static inline uint32_t shmlog_extent_count(uint64_t value) { return (uint32_t)(value >> 32); }
static inline uint32_t shmlog_data_slots(uint32_t bytes)
{
    return bytes / SHMLOG_DATA_BYTES + (bytes % SHMLOG_DATA_BYTES != 0); /* of any number of bytes, without a carry */
}

#endif
