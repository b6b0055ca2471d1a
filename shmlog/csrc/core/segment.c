#include "segment.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

static uint64_t lanes_offset(void) { return SHMLOG_PAGE + round_up(sizeof(shmlog_name_table), SHMLOG_PAGE); }

uint64_t shmlog_segment_head_bytes(uint32_t lanes)
{
    return lanes_offset() + round_up((uint64_t)lanes * sizeof(shmlog_lane_header), SHMLOG_PAGE);
}

static uint64_t total_bytes(uint32_t lanes, uint32_t lane_slots)
{
    return shmlog_segment_head_bytes(lanes) + (uint64_t)lanes * lane_slots * sizeof(shmlog_slot);
}

/* Give the range real memory, or say now that there is none: a store into a
 * page that can't be had would be a SIGBUS in the middle of training. */
static int allocate(int fd, uint64_t offset, uint64_t bytes)
{
#if defined(__APPLE__)
    static const char zeros[65536];
    for (uint64_t done = 0; done < bytes;) {
        uint64_t left = bytes - done;
        ssize_t written = pwrite(fd, zeros, left < sizeof zeros ? left : sizeof zeros, (off_t)(offset + done));
        if (written < 0 && errno != EINTR) {
            return errno;
        }
        done += written > 0 ? (uint64_t)written : 0;
    }
    return 0;
#else
    int error;
    do {
        error = posix_fallocate(fd, (off_t)offset, (off_t)bytes);
    } while (error == EINTR);
    return error;
#endif
}

static int map(shmlog_segment *segment, int fd, uint64_t bytes)
{
    int error = shmlog_description_keep(&segment->file, fd);
    if (error) {
        return error;
    }
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        return errno;
    }
    segment->base = base;
    segment->bytes = bytes;
    segment->header = base;
    return 0;
}

static bool is_power_of_two(uint32_t value) { return value && !(value & (value - 1)); }

static bool geometry_is_sane(uint32_t lanes, uint32_t lane_slots)
{
    return lanes >= 1 && lanes <= SHMLOG_LANES_MAX && is_power_of_two(lane_slots) &&
           lane_slots >= SHMLOG_LANE_SLOTS_MIN && lane_slots <= SHMLOG_LANE_SLOTS_MAX;
}

static bool policy_is_sane(const shmlog_drop_policy *policy)
{
    return policy->wait <= 1 && policy->strict <= 1 && policy->max_wait_ns >= 0 &&
           policy->max_wait_ns <= SHMLOG_MAX_WAIT_NS;
}

/* From the constants, which are known to be good. */
static void find_parts(shmlog_segment *segment)
{
    const shmlog_constants *constants = &segment->constants;
    segment->names = (shmlog_name_table *)(void *)(segment->base + SHMLOG_PAGE);
    segment->lanes = (shmlog_lane_header *)(void *)(segment->base + lanes_offset());
    segment->lane_count = constants->lanes;
    segment->lane_slots = constants->lane_slots;
    segment->shift = (uint32_t)__builtin_ctz(constants->lane_slots);
    segment->tsc = SHMLOG_HAS_TSC && constants->clock == SHMLOG_CLOCK_TSC;
}

static void write_header(shmlog_segment *segment, const shmlog_geometry *geometry)
{
    shmlog_header *header = segment->header;
    shmlog_constants *constants = &segment->constants;

    *constants = (shmlog_constants){
        .version = SHMLOG_VERSION,
        .page = SHMLOG_PAGE,
        .segment_bytes = segment->bytes,
        .lanes = geometry->lanes,
        .lane_slots = geometry->lane_slots,
        .names_offset = SHMLOG_PAGE,
        .lanes_offset = lanes_offset(),
        .slots_offset = shmlog_segment_head_bytes(geometry->lanes),
        .clock = geometry->clock,
        .first_lane = geometry->first_lane,
        .drop_policy = geometry->drop_policy,
    };
    strncpy(constants->run_id, geometry->run_id, sizeof constants->run_id - 1);
    if (strlen(geometry->run_dir) < sizeof constants->run_dir) {
        strcpy(constants->run_dir, geometry->run_dir);
    }
    find_parts(segment);
    constants->anchor = shmlog_clock_anchor(segment->tsc);
    header->constants = *constants;
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        /* relaxed: published by the magic. */
        atomic_store_explicit(&header->unlaned[reason], geometry->unlaned[reason], memory_order_relaxed);
    }
    /* CREATE, release side: whoever sees the magic sees the whole header. */
    atomic_store_explicit(&header->magic, SHMLOG_MAGIC, memory_order_release);
}

int shmlog_segment_create(shmlog_segment *segment, int fd, const shmlog_geometry *geometry)
{
    if (!geometry_is_sane(geometry->lanes, geometry->lane_slots) || geometry->clock > SHMLOG_CLOCK_TSC ||
        geometry->first_lane > SHMLOG_FIRST_LANE_MAX || !policy_is_sane(&geometry->drop_policy)) {
        return SHMLOG_BAD_GEOMETRY;
    }
    uint64_t bytes = total_bytes(geometry->lanes, geometry->lane_slots);
    if (ftruncate(fd, (off_t)bytes) != 0) {
        return errno;
    }
    int error = allocate(fd, 0, shmlog_segment_head_bytes(geometry->lanes));
    if (error == 0) {
        error = map(segment, fd, bytes);
    }
    if (error == 0) {
        write_header(segment, geometry);
    }
    return error;
}

static int check_constants(const shmlog_constants *constants, uint64_t file_bytes)
{
    if (constants->version != SHMLOG_VERSION) {
        return SHMLOG_BAD_VERSION;
    }
    if (constants->page != SHMLOG_PAGE || constants->clock > SHMLOG_CLOCK_TSC ||
        (constants->clock == SHMLOG_CLOCK_TSC && !SHMLOG_HAS_TSC) ||
        !geometry_is_sane(constants->lanes, constants->lane_slots) ||
        constants->first_lane > SHMLOG_FIRST_LANE_MAX || !policy_is_sane(&constants->drop_policy)) {
        return SHMLOG_BAD_LAYOUT;
    }
    uint64_t bytes = total_bytes(constants->lanes, constants->lane_slots);
    if (constants->segment_bytes != bytes || file_bytes != bytes || constants->names_offset != SHMLOG_PAGE ||
        constants->lanes_offset != lanes_offset() ||
        constants->slots_offset != shmlog_segment_head_bytes(constants->lanes) ||
        !memchr(constants->run_id, '\0', sizeof constants->run_id) ||
        !memchr(constants->run_dir, '\0', sizeof constants->run_dir)) {
        return SHMLOG_BAD_LAYOUT;
    }
    return 0;
}

/* Take a copy of the constants and check that. */
static int take_constants(shmlog_segment *segment)
{
    /* CREATE, acquire side. */
    if (atomic_load_explicit(&segment->header->magic, memory_order_acquire) != SHMLOG_MAGIC) {
        return SHMLOG_BAD_MAGIC;
    }
    segment->constants = segment->header->constants;
    return check_constants(&segment->constants, segment->bytes);
}

int shmlog_segment_open(shmlog_segment *segment, int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return errno;
    }
    if (status.st_size < (off_t)SHMLOG_PAGE) {
        return SHMLOG_BAD_MAGIC;
    }
    int error = map(segment, fd, (uint64_t)status.st_size);
    if (error) {
        return error;
    }
    error = take_constants(segment);
    if (error) {
        munmap(segment->base, segment->bytes);
        segment->base = NULL;
        return error;
    }
    find_parts(segment);
    return 0;
}

void shmlog_segment_close(shmlog_segment *segment)
{
    if (segment->base) {
        munmap(segment->base, segment->bytes);
        shmlog_description_close(&segment->file);
        segment->base = NULL;
    }
}

void shmlog_segment_view_lane(const shmlog_segment *segment, uint32_t number, shmlog_lane *lane)
{
    memset(lane, 0, sizeof *lane);
    lane->shared = &segment->lanes[number];
    lane->slots = shmlog_segment_slots(segment, number);
    lane->mask = segment->lane_slots - 1;
    lane->shift = segment->shift;
}

int shmlog_segment_allocate_lane(const shmlog_segment *segment, int fd, uint32_t lane)
{
    uint64_t bytes = (uint64_t)segment->lane_slots * sizeof(shmlog_slot);
    int error = allocate(fd, segment->constants.slots_offset + lane * bytes, bytes);
#if defined(MADV_POPULATE_WRITE)
    if (error == 0) {
        /* Map the pages now: later each first touch would cost a fault in the
         * middle of a log call. Old kernels refuse; nothing depends on it. */
        (void)madvise(shmlog_segment_slots(segment, lane), bytes, MADV_POPULATE_WRITE);
    }
#endif
    return error;
}

/* Allocate the lane, unless somebody has it or has had it. */
static int make_spare(shmlog_segment *segment, int lock_fd, uint32_t number)
{
    int error = shmlog_lock_take(lock_fd, SHMLOG_LOCK_LANE + (int)number, true);
    if (error) {
        return error;
    }
    _Atomic uint32_t *allotted = &segment->lanes[number].allotted;
    /* relaxed: the lane's lock orders us after who allotted it meanwhile. */
    if (!atomic_load_explicit(allotted, memory_order_relaxed)) {
        error = shmlog_segment_allocate_lane(segment, lock_fd, number);
        if (error == 0) {
            /* ALLOT, release side. */
            atomic_store_explicit(allotted, 1, memory_order_release);
        }
    }
    shmlog_lock_drop(lock_fd, SHMLOG_LOCK_LANE + (int)number);
    return error;
}

int shmlog_segment_keep_spares(shmlog_segment *segment, int lock_fd, uint32_t spares)
{
    uint32_t found = 0;
    for (uint32_t number = 0; number < segment->lane_count && found < spares; number++) {
        const shmlog_lane_header *shared = &segment->lanes[number];
        /* relaxed: guesses; who takes a lane looks again, and one is missing or too many for a tick at most. */
        bool is_allotted = atomic_load_explicit(&shared->allotted, memory_order_relaxed) != 0;
        if (is_allotted && atomic_load_explicit(&shared->head, memory_order_relaxed) != 0) { /* relaxed: as above */
            continue;
        }
        int error = is_allotted ? 0 : make_spare(segment, lock_fd, number);
        if (error && error != EAGAIN) {
            return error;
        }
        found += error == 0;
    }
    return 0;
}
