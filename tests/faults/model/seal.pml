/* From the logs to parts and events.jsonl, with a kill, or a loss of power, at every step, and a reader.
 *
 * Follows flusher/sealer.py (seal log n, commit the books, delete log n), flusher/merger.py (merge sealed parts
 * meanwhile), flusher/closing.py and loop.py (complete, merge the rest, clean up), base/durable.py (atomic_write)
 * and reader/snapshot.py (books, logs, parts, books again). Log n holds one metric and one event, both durable: what
 * is at stake is whether sealing keeps them. A file has what processes see and what a loss of power leaves at least.
 */
#ifndef LOGS
#define LOGS 2
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef POWER_LOSSES
#define POWER_LOSSES 1
#endif
#ifndef LOOKS
#define LOOKS 1          /* of the reader */
#endif
#define EVENTS_MAX (LOGS * (KILLS + POWER_LOSSES + 1))
#define MERGED LOGS      /* number of the part that covers all others, */
#define LIVE (LOGS + 1)  /* and of the one of logs 0 and 1, merged while others are sealed */

typedef Books { byte next_log; byte events }

bool log[LOGS + 1];      /* is there */
Books books;
Books books_durable;
byte event[EVENTS_MAX + 1];  /* events.jsonl: the log that each line is from */
byte events;             /* lines */
byte events_durable;
bool part[LOGS + 2];
bool part_named[LOGS + 2];   /* its name is durable, */
bool part_filled[LOGS + 2];  /* and what is in it */
bool complete;

bool sealing;
bool kill;
byte kills;
byte power_losses;
bool ended;

inline write_part(number)
{
    /* as a temporary file, which nobody reads */
#ifndef MISTAKE_PART_NOT_SYNCED
    part_filled[number] = true;
#endif
    part[number] = true;  /* renamed */
#ifdef MISTAKE_FOLDER_NOT_SYNCED
    skip
#else
    part_named[number] = true
#endif
}

/* A merge that was killed may have left what covers other parts under a name that is not durable. */
inline sync_name(number)
{
#ifdef MISTAKE_COVERED_GO_BEFORE_NAME
    skip
#else
    part_named[number] = true
#endif
}

inline commit_books()
{
    d_step { books.next_log = number + 1; books.events = events }
    d_step { books_durable.next_log = books.next_log; books_durable.events = books.events }
}

inline sync_events()
{
#ifdef MISTAKE_EVENTS_NOT_SYNCED
    skip
#else
    events_durable = events
#endif
}

/* What is behind the books is not sealed, and will be written once more. */
inline cut_events()
{
#ifdef MISTAKE_EVENTS_NOT_CUT
    skip
#else
    d_step {
        events = (events > books.events -> books.events : events);
        events_durable = (events_durable > events -> events : events_durable)
    }
#endif
}

/* What the merging thread does between two steps of the sealing one: any of its own steps, or none. */
inline merge_some()
{
    do
#ifdef MISTAKE_MERGED_BEFORE_SEALED
    :: !merging && part[0] && part[1] && !part[LIVE] ->
#else
    :: !merging && books.next_log >= 2 && part[0] && part[1] && !part[LIVE] ->
#endif
        merging = true;
#ifndef MISTAKE_MERGED_BEFORE_BOOKS_DURABLE
        d_step { books_durable.next_log = books.next_log; books_durable.events = books.events };
#endif
#ifdef MISTAKE_PARTS_DELETED_BEFORE_LIVE
        part[0] = false;
        part[1] = false;
#endif
        write_part(LIVE)
    :: part[LIVE] && (part[0] || part[1]) ->
        sync_name(LIVE);
        part[0] = false;
        part[1] = false
    :: break
    od
}

inline seal()
{
    d_step { event[events] = number; events++ }
#ifdef MISTAKE_LOG_DELETED_FIRST
    log[number] = false;
#endif
#ifdef MISTAKE_BOOKS_BEFORE_PART
    sync_events();
    commit_books();
    write_part(number);
#else
    write_part(number);
    merge_some();
    sync_events();
    commit_books();
#endif
    merge_some();
    log[number] = false;
    number++
}

inline remove_logs()
{
    n = 0;
    do
    :: n < LOGS -> log[n] = false; n++
    :: else -> break
    od
}

inline remove_parts()
{
    n = 0;
    do
    :: n < LOGS -> part[n] = false; n++
    :: else -> break
    od;
    part[LIVE] = false
}

inline are_there(parts)
{
    n = 0;
    do
    :: n < LOGS && (part[n] || (n < 2 && part[LIVE])) -> n++
    :: else -> break
    od;
    parts = n == LOGS && !part[MERGED]
}

inline merge_parts()
{
    d_step { are_there(mergeable) }
#ifdef MISTAKE_PARTS_DELETED_FIRST
    remove_parts();
    if
    :: mergeable -> write_part(MERGED)
    :: else
    fi
#else
    if
    :: mergeable -> write_part(MERGED)
    :: else
    fi;
    if
    :: part[MERGED] -> sync_name(MERGED); remove_parts()
    :: else
    fi
#endif
}

proctype Sealer()
{
    byte number, n;
    bool mergeable, merging;
begin:
    {
        sealing = true;
        if
#ifdef MISTAKE_COMPLETE_SEALED_AGAIN
        :: true ->
#else
        :: !complete ->
#endif
            cut_events();
            number = books.next_log;
            do
            :: number < LOGS -> seal()
            :: else -> break
            od;
            merge_some();
            complete = true  /* run.yaml, durable */
#ifndef MISTAKE_COMPLETE_SEALED_AGAIN
        :: else
#endif
        fi;
        remove_logs();
        merge_parts();
        ended = true
    } unless { kill };
    atomic {
        sealing = false; number = 0; n = 0; mergeable = false; merging = false;
        if
        :: kill -> kill = false; goto begin
        :: else -> skip
        fi
    }
}

proctype Killer()
{
    do
    :: atomic { kills < KILLS && sealing && !kill -> kill = true; kills++; sealing = false }
    :: ended -> break
    od
}

/* Names and lines that were not fsynced are there or not; what was not fsynced in a part is not. */
proctype Power()
{
    byte n;
    do
    :: atomic {
            power_losses < POWER_LOSSES && sealing && !kill ->
            kill = true;
            sealing = false;
            power_losses++;
            books.next_log = books_durable.next_log;
            books.events = books_durable.events;
            do
            :: events > events_durable -> events--
            :: break
            od;
            do
            :: n <= LIVE ->
                if
                :: part[n] && !part_named[n] -> part[n] = false
                :: true
                fi;
                part[n] = part[n] && part_filled[n];
                n++
            :: else -> n = 0; break
            od
        }
    :: ended -> break
    od
}

/* Every record once: in a part or a line that counts, or in a log that does. A part that another covers does not. */
inline check(seen_next, seen_events)
{
    n = 0;
    do
    :: n < LOGS ->
        covered = seen_part[MERGED] || (n < 2 && seen_part[LIVE]);
        found = (n >= seen_next && seen_log[n]) + (n < seen_next && seen_part[n] && !covered);
        covered = seen_part[LIVE] && !seen_part[MERGED];
        found = found + (n < 2 && seen_next >= 2 && covered) + (n < seen_next && seen_part[MERGED]);
        assert(found == 1);  /* I6: each metric once */
        n++
    :: else -> break
    od;
    assert(seen_events == seen_next);
    n = 0;
    do
    :: n < seen_events -> assert(n < events && event[n] == n); n++  /* I6: each event once, in order */
    :: else -> break
    od;
    n = 0; found = 0; covered = false
}

proctype Reader()
{
    byte next, lines, n, found, looks;
    bool seen_log[LOGS + 1], seen_part[LOGS + 2], covered;
    do
    :: looks < LOOKS && !ended ->
        /* What a loss of power undoes under a reader's eyes is no concern of his. */
        atomic { power_losses == POWER_LOSSES || ended -> next = books.next_log; lines = books.events }
        if
        :: complete || ended -> skip
        :: else ->
            n = 0;
            do
            :: n < LOGS -> seen_log[n] = log[n]; n++
            :: else -> break
            od;
            atomic {
                n = 0;
                do
                :: n <= LIVE -> seen_part[n] = part[n]; n++
                :: else -> break
                od
            }
#ifndef MISTAKE_BOOKS_READ_ONCE
            if
            :: books.next_log != next || complete -> skip
            :: else -> atomic { check(next, lines) }
            fi
#else
            atomic { check(next, lines) }
#endif
        fi;
        atomic {
            looks++; next = 0; lines = 0; n = 0; found = 0;
            do
            :: n <= LOGS -> seen_log[n] = false; n++
            :: else -> break
            od;
            n = 0;
            do
            :: n <= LIVE -> seen_part[n] = false; n++
            :: else -> break
            od;
            n = 0
        }
    :: else -> break
    od;
    ended;
    atomic {
        do
        :: n <= LIVE -> seen_part[n] = part[n]; n++
        :: else -> break
        od;
        check(LOGS, events);
        assert(events == LOGS)  /* I6: the same content, however often it was begun anew */
    }
}

init {
    byte n;
    atomic {
        do
        :: n < LOGS -> log[n] = true; n++
        :: else -> break
        od;
        n = 0;
        run Sealer(); run Killer(); run Power(); run Reader()
    }
}
