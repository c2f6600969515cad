/*
 * The common part of the UDP programs. One thread sends batches of datagrams to itself by loopback, so that
 * the counts include both ends. It receives and checks each datagram.
 *
 * PROGRAM equal|unequal BATCHES  - sends BATCHES batches and exits
 * PROGRAM equal|unequal          - sends as many batches as each input line says, and prints the
 *                                  nanoseconds per datagram: elapsed time and processor time
 */
#ifndef DATAGRAM_H
#define DATAGRAM_H
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* 64 bytes, or rising lengths around that, which the kernel cannot coalesce. */
enum { BATCH = 64, SIZE = 64, SHORTEST = 33, LONGEST = SHORTEST + BATCH - 1 };

/* A run that hangs because of a lost datagram must end. */
enum { GIVE_UP_AFTER_SECONDS = 120 };

static char sent[BATCH * LONGEST]; /* one after another, without gaps */
static char *data[BATCH];
static size_t length[BATCH];
static char got[BATCH][LONGEST + 1]; /* the additional byte shows a datagram that is too long */
static uint64_t number; /* the number of the first datagram in the batch */

/* Each program defines its sockets, and sends and receives a batch. It passes each datagram to arrived(). */
static void open_sockets(void);
static void exchange(void);

/* Checks that datagram i of the batch is in order, whole, and not from an earlier batch. */
static inline void arrived(unsigned i, const char *bytes, size_t len)
{
    uint64_t n;

    memcpy(&n, bytes, sizeof n);
    if (i >= BATCH || len != length[i] || n != number + i || bytes[len - 1] != (char)i) {
        fprintf(stderr, "datagram differs from the sent one: number %u of a batch, %zu bytes\n", i, len);
        exit(1);
    }
}

static void lay_out(int equal)
{
    char *at = sent;

    for (unsigned i = 0; i < BATCH; i++) {
        data[i] = at;
        length[i] = equal ? SIZE : SHORTEST + i;
        memset(at, (char)i, length[i]);
        at += length[i];
    }
}

static void run(long batches)
{
    while (batches-- > 0) {
        for (unsigned i = 0; i < BATCH; i++) {
            uint64_t n = number + i;

            memcpy(data[i], &n, sizeof n);
        }
        exchange();
        number += BATCH;
    }
}

static int64_t nanoseconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int main(int argc, char **argv)
{
    char line[32];

    if (argc < 2 || argc > 3 || (strcmp(argv[1], "equal") && strcmp(argv[1], "unequal"))) {
        fprintf(stderr, "usage: %s equal|unequal [BATCHES]\n", argv[0]);
        return 2;
    }
    alarm(GIVE_UP_AFTER_SECONDS);
    lay_out(strcmp(argv[1], "equal") == 0);
    open_sockets();
    if (argc == 3) {
        run(strtol(argv[2], NULL, 10));
        return 0;
    }
    while (fgets(line, sizeof line, stdin)) {
        long batches = strtol(line, NULL, 10);
        int64_t wall = nanoseconds(CLOCK_MONOTONIC), cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);

        run(batches);
        cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        wall = nanoseconds(CLOCK_MONOTONIC) - wall;
        printf("%.2f %.2f\n", (double)wall / (double)(batches * BATCH), (double)cpu / (double)(batches * BATCH));
        fflush(stdout);
    }
    return 0;
}
#endif
