/* The fast path of a log call without its Python objects: what record_fast() in
 * py_metric.c does once value and step are converted. Compiled to be read by
 * test_fast_path.py, never run. */
#include "clock.h"
#include "producer.h"

bool fast_path(shmlog_producer *producer, uint64_t bits, int64_t step, uint32_t id);

bool fast_path(shmlog_producer *producer, uint64_t bits, int64_t step, uint32_t id)
{
    if (!shmlog_producer_has_room(producer, 1)) {
        return false;
    }
    shmlog_lane_put(&producer->lane, shmlog_ticks(producer->segment->tsc), bits, step, id, SHMLOG_FLOAT);
    producer->logged++;
    return true;
}
