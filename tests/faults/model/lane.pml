/* One lane from its producers to the log, with a crash at every step.
 *
 * Follows shmlog/csrc/core: lane.c (commit words, laps, units), producer.c (hand-over under the
 * lane's lock), room.c (room, drops, GAP, OWNER), frame.c, drain.c (walk, copy, write,
 * publish, settle, sync) and flusher/closing.py (a restart: tail = max(tail, last
 * good frame)). A step here is a load or store of a shared word there; what nobody
 * else can see is taken together. Spin knows sequential consistency; the one
 * reordering that matters here, of the relaxed head, is written out.
 *
 * Bounds and mistakes are given by -D. Without a MISTAKE_… every assertion holds;
 * with one, some assertion fails. Their comments name the invariants of the design.
 */
#ifndef SLOTS
#define SLOTS 4
#endif
#ifndef UNITS
#define UNITS 4          /* records that are offered, by all producers together */
#endif
#ifndef UNIT_MAX
#define UNIT_MAX 2       /* slots of the largest */
#endif
#ifndef PRODUCERS
#define PRODUCERS 2      /* one after the other, unless the lane is given on too early */
#endif
#ifndef PRODUCER_DEATHS
#define PRODUCER_DEATHS 1
#endif
#ifndef FLUSHER_DEATHS
#define FLUSHER_DEATHS 1
#endif
#ifndef LOG_DAMAGES
#define LOG_DAMAGES 0    /* a dead flusher's last frame turns out to be lost */
#endif
#ifndef SYNC
#define SYNC 0           /* flush(durable=True) */
#endif
#define FLUSHERS (FLUSHER_DEATHS + 1)

/* What a slot holds: the number of a record (1 … UNITS), a producer, or the lane's drops so far. */
#define OWNER(who) (50 + (who))
#define GAP(count) (100 + (count))
#define IS_RECORD(unit) ((unit) < OWNER(0))
#define IS_GAP(unit) ((unit) >= GAP(0))

/* ---- shared memory ---- */

typedef Slot {
    byte unit;
    byte part;           /* which of the unit's slots */
    byte size;           /* in the first: how many */
    byte lap;            /* commit word: lap + 1, */
    bool member          /* and the MEMBER flag */
}
Slot slot[SLOTS];
byte tail;
byte head_hint;
byte dropped;
byte synced;

/* ---- the kernel ---- */

byte lane_lock;          /* its holder; 0: none */
byte flusher_lock;
byte members = PRODUCERS;

/* ---- the log: where it ends and what its decoder knows there, and the same one frame earlier ---- */

typedef Log {
    byte position;
    byte gapped;
    byte owner;
    byte last            /* record */
}
Log log;
Log log_before;
byte log_durable;        /* position that an fsync has covered */
byte frame_unit[SLOTS];  /* the frame under construction */
byte frame_part[SLOTS];
byte frame_size[SLOTS];

/* ---- what the books are held against ---- */

byte offered;
byte author[UNITS + 1];
byte doing[PRODUCERS + 1];  /* the record a producer is inside the call of */
bool returned[UNITS + 1];   /* its call has returned and wrote it */
bool gave_up[UNITS + 1];    /* its call has dropped it */
bool logged[UNITS + 1];
bool lost[UNITS + 1];       /* with a frame that was accepted and then damaged */
bool finished;

/* ---- deaths ---- */

byte kill_producer;      /* who is to take no further step */
byte kill_flusher;
byte producers_begun;    /* lives begin in order: which of two alike is first makes no difference */
byte flushers_begun;

/* SIGKILL of who is at work, at any time. */
proctype Killer()
{
    byte producers, flushers;
    do
    :: atomic { producers < PRODUCER_DEATHS && lane_lock && !kill_producer ->
            kill_producer = lane_lock; producers++ }
    :: atomic { flushers < FLUSHER_DEATHS && flusher_lock && !kill_flusher ->
            kill_flusher = flusher_lock; flushers++ }
    :: finished || (producers == PRODUCER_DEATHS && flushers == FLUSHER_DEATHS) -> break
    od
}

/* ---- the lane, both sides ---- */

#define AT(p) slot[(p) % SLOTS]

#ifdef MISTAKE_NO_LAP
#define LAP(p) 1
#else
#define LAP(p) ((p) / SLOTS + 1)
#endif
#ifdef MISTAKE_NO_MEMBER_FLAG
#define MEMBER false
#else
#define MEMBER true
#endif

/* A unit is committed at p. */
#define BEGINS(p) (AT(p).lap == LAP(p) && !AT(p).member)

inline payload(p, what, number, count)
{
    AT(p).unit = what; AT(p).part = number; AT(p).size = count
}

inline commit(p, flag)
{
    AT(p).lap = LAP(p); AT(p).member = flag
}

inline fill(p, what, number, count, flag)
{
#ifdef MISTAKE_COMMIT_BEFORE_PAYLOAD
    d_step { commit(p, flag) }
    d_step { payload(p, what, number, count) }
#else
    d_step { payload(p, what, number, count) }
    d_step { commit(p, flag) }
#endif
}

/* ---- the producer ---- */

/* The relaxed store of the hint may be seen before the commit word that stands before
 * it; which nobody can tell who does not read the hint. */
inline fill_header(what, count)
{
#ifdef MISTAKE_TRUST_HEAD
    head_hint = head + count;
#endif
    fill(head, what, 0, count, false)
}

inline write_unit(what, count)
{
#ifdef MISTAKE_FIRST_TO_LAST
    fill_header(what, count);
#endif
    i = count - 1;
    do
    :: i > 0 -> fill(head + i, what, i, 0, MEMBER); i--
    :: else -> break
    od;
#ifdef MISTAKE_FIRST_TO_LAST
    skip
#else
    fill_header(what, count)
#endif
}

/* The lock is held: continue at the first uncommitted slot. */
inline adopt()
{
    d_step {
        tail_seen = tail;
#ifdef MISTAKE_SUCCESSOR_AT_HEAD
        head = head_hint;
#else
        head = tail_seen;
        do
        :: head - tail_seen < SLOTS && BEGINS(head) -> head = head + AT(head).size
        :: else -> break
        od;
#endif
        owes_owner = true;
#ifndef MISTAKE_GAP_FORGOTTEN
        owes_gap = dropped > 0  /* told once more if it was told: totals change nothing */
#endif
    }
}

#ifdef MISTAKE_ROOM_OFF_BY_ONE
#define ROOM (SLOTS + 1)
#else
#define ROOM SLOTS
#endif
#define FITS (head - tail_seen + (owes_owner -> 1 : 0) + (owes_gap -> 1 : 0) + size <= ROOM)

/* Before a unit that fits: the drops are told where they were. */
inline write_owed()
{
    if
    :: owes_gap ->
#ifdef MISTAKE_GAP_TELLS_ONE
        fill_header(GAP(1), 1);
#else
        fill_header(GAP(dropped), 1);
#endif
        d_step { head++; head_hint = head; owes_gap = false }
    :: else
    fi;
    if
    :: owes_owner ->
#ifndef MISTAKE_NO_OWNER
        fill_header(OWNER(me), 1);
        d_step { head++; head_hint = head }
#endif
        owes_owner = false
    :: else
    fi
}

inline log_record()
{
    atomic {
        offered < UNITS -> offered++; doing[me] = offered; author[offered] = me;
        if
        :: size = 1
        :: UNIT_MAX >= 2 -> size = 2
        :: UNIT_MAX >= 3 -> size = 3
        fi;
        if
        :: !FITS || owes_gap || owes_owner -> tail_seen = tail  /* RECLAIM, acquire side */
        :: else
        fi
    }
    if
    :: !FITS ->
        d_step {
#ifndef MISTAKE_DROP_NOT_COUNTED
            dropped++;
#endif
            owes_gap = true; gave_up[doing[me]] = true; doing[me] = 0; size = 0
        }
    :: else ->
        write_owed();
        write_unit(doing[me], size);
        d_step { head = head + size; head_hint = head; returned[doing[me]] = true; doing[me] = 0; size = 0 }
    fi
}

proctype Producer(byte me)
{
    byte head, tail_seen, size, i;
    bool owes_owner, owes_gap;

    {
        /* Who is merely slow, or stopped, holds the lock still. */
#ifdef MISTAKE_LANE_GIVEN_ON
        atomic { producers_begun == me - 1 -> producers_begun = me; lane_lock = me }
#else
        atomic { lane_lock == 0 && producers_begun == me - 1 -> producers_begun = me; lane_lock = me }
#endif
        adopt();
        do
        :: log_record()
        :: break
        od
    } unless { kill_producer == me };
    atomic {
        if
        :: kill_producer == me -> kill_producer = 0
        :: else
        fi;
        if
        :: lane_lock == me -> lane_lock = 0
        :: else
        fi;
        members--;
        doing[me] = 0;
        head = 0; tail_seen = 0; size = 0; i = 0; owes_owner = false; owes_gap = false
    }
}

/* ---- the flusher ---- */

/* Bring `staged` behind all whole units. */
inline walk()
{
#ifdef MISTAKE_TRUST_HEAD
    staged = head_hint;
#else
    do
    :: d_step {
            staged - cursor < SLOTS && BEGINS(staged) ->
            assert(AT(staged).part == 0 && AT(staged).size > 0);  /* I1: no other slot is taken for a unit's first */
            i = 1;
            do
            :: i < AT(staged).size ->
                assert(AT(staged + i).lap == LAP(staged + i));  /* I3: a unit is whole or absent */
                i++
            :: else -> break
            od;
            i = 0;
            staged = staged + AT(staged).size
        }
    :: else -> break
    od
#endif
}

inline copy()
{
    d_step {
        do
        :: cursor + i < staged ->
            frame_unit[i] = AT(cursor + i).unit;
            frame_part[i] = AT(cursor + i).part;
            frame_size[i] = AT(cursor + i).size;
            i++
        :: else -> break
        od;
        i = 0
    }
}

/* What the decoder makes of a record. */
inline decode_record()
{
    assert(unit > log.last);  /* I3: in order, and none twice */
    log.last++;
    do
    :: log.last < unit ->
        assert(!returned[log.last] || lost[log.last]);  /* I3: and none left out */
        log.last++
    :: else -> break
    od;
    assert(log.owner == author[unit] || LOG_DAMAGES);  /* I3: and each is its producer's */
    told = 0;
    part = 1;
    do
    :: part < unit -> told = told + (gave_up[part] -> 1 : 0); part++
    :: else -> break
    od;
    assert(log.gapped == told || LOG_DAMAGES);  /* I4: the drops before it are told before it: seq is exact */
    told = 0;
    logged[unit] = true
}

/* One write: the frame is in the log whole, or (killed before) it is not. */
inline append()
{
    d_step {
        assert(log.position == cursor);  /* I3: frames join */
        log_before.position = log.position;
        log_before.gapped = log.gapped;
        log_before.owner = log.owner;
        log_before.last = log.last;
        do
        :: cursor + i < staged ->
            unit = frame_unit[i];
            assert(frame_part[i] == 0 && frame_size[i] > 0);  /* I1: a unit begins with its header */
            if
            :: IS_GAP(unit) && unit - GAP(0) > log.gapped -> log.gapped = unit - GAP(0)
            :: IS_GAP(unit) && unit - GAP(0) <= log.gapped
            :: IS_RECORD(unit) -> decode_record()
            :: else -> log.owner = unit - OWNER(0)
            fi;
            part = 1;
            do
            :: part < frame_size[i] ->
                assert(cursor + i + part < staged);
                assert(frame_unit[i + part] == unit && frame_part[i + part] == part);  /* I1: its payload */
                part++
            :: else -> break
            od;
            i = i + frame_size[i]
        :: else -> break
        od;
        log.position = staged;
        i = 0; part = 0; unit = 0
    }
}

inline forget_frame()
{
    do
    :: i < SLOTS -> frame_unit[i] = 0; frame_part[i] = 0; frame_size[i] = 0; i++
    :: else -> break
    od;
    i = 0
}

inline publish(upto)
{
    assert(tail <= upto);  /* I2: it only grows */
    assert(upto <= log.position);  /* I2: tail ≤ what is in the log */
    tail = upto
}

inline pass()
{
    walk();
    copy();
#ifdef MISTAKE_TAIL_BEFORE_WRITE
    tail = staged;
    append();
#else
    append();
    d_step { publish(staged) }
#endif
    d_step { cursor = staged; forget_frame() }
}

/* Where a restart begins. Its log ends before tail only if a frame that was accepted is lost. */
inline restore()
{
    d_step {
#ifdef MISTAKE_RESTART_AT_TAIL
        cursor = tail;
#else
        cursor = log.position;
#ifndef MISTAKE_RESTART_AT_LOG
        if
        :: tail > cursor -> cursor = tail; log.position = tail; log.owner = 0
        :: else
        fi;
#endif
        publish(cursor);
#endif
        staged = cursor
    }
}

inline sync()
{
#ifndef MISTAKE_NO_FSYNC
    log_durable = log.position;
#endif
    d_step { synced = cursor; assert(synced <= log_durable) }  /* SYNC: what was answered for is on the disk */
}

/* Nobody is left: what an owner has dropped since its last GAP is told in its stead. */
inline settle()
{
#ifdef MISTAKE_NO_SETTLE
    skip
#else
    if
    :: dropped > log.gapped -> fill(cursor, GAP(dropped), 0, 1, false); pass()
    :: else
    fi
#endif
}

inline check_books()
{
    d_step {
        unit = 1;
        do
        :: unit <= offered ->
            assert(!returned[unit] || logged[unit] || lost[unit]);  /* I3: what returned is on disk */
            assert(!(gave_up[unit] && logged[unit]));
            if
            :: gave_up[unit] -> part++
            :: else
            fi;
            unit++
        :: else -> break
        od;
        assert(part == log.gapped);  /* I4: drops are told exactly */
        unit = 0; part = 0
    }
}

proctype Flusher(byte life)
{
    byte cursor, staged, i, part, unit, told;

    {
#ifdef MISTAKE_TWO_FLUSHERS
        atomic { flushers_begun == life - 1 -> flushers_begun = life; flusher_lock = life }
#else
        atomic { !flusher_lock && flushers_begun == life - 1 -> flushers_begun = life; flusher_lock = life }
#endif
        if
        :: finished
        :: else ->
            restore();
            do
#ifdef MISTAKE_TRUST_HEAD
            :: head_hint > cursor -> pass()
            :: members == 0 && head_hint <= cursor -> break
#else
            :: BEGINS(cursor) -> pass()
            :: members == 0 && !BEGINS(cursor) -> break
#endif
#if SYNC
            :: log_durable < log.position -> sync()
#endif
            od;
            settle();
            check_books();
            finished = true
        fi
    } unless { kill_flusher == life };
    atomic {
        if
        :: kill_flusher == life -> kill_flusher = 0
        :: else
        fi;
        if
        :: flusher_lock == life -> flusher_lock = 0
        :: else
        fi;
        cursor = 0; staged = 0; i = 0; part = 0; unit = 0;
        forget_frame()
    }
}

/* The last frame that the log accepted can't be read any more. What its slots held is
 * drained again if tail was not published, else it is gone. */
#if LOG_DAMAGES
proctype Disk()
{
    byte unit;
    if
    :: atomic {
            !flusher_lock && log.position > log_before.position && log_before.position == 0 && !finished ->
            unit = log_before.last + 1;
            do
            :: unit <= log.last ->
                lost[unit] = logged[unit] && tail == log.position;
                logged[unit] = false;
                unit++
            :: else -> break
            od;
            log.position = log_before.position;
            log.gapped = log_before.gapped;
            log.owner = log_before.owner;
            log.last = log_before.last;
            unit = 0
        }
    :: finished
    fi
}
#endif

init {
    byte n;
    atomic {
        n = 1;
        do
        :: n <= PRODUCERS -> run Producer(n); n++
        :: else -> break
        od;
        n = 1;
        do
        :: n <= FLUSHERS -> run Flusher(n); n++
        :: else -> break
        od;
        n = 0;
        run Killer();
#if LOG_DAMAGES
        run Disk()
#endif
    }
}
