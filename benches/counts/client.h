/* What the clients share: what they are asked to do, on the command line. */
#ifndef CLIENT_H
#define CLIENT_H
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A counting run that hangs must not stay behind. */
enum { GIVE_UP_AFTER = 60 };
enum { CONNECT_WITHIN_MS = 5000, SIZE = 64 };

struct task {
    unsigned short port;
    long connections;
    long messages; /* on each, sent and answered one after another */
    long timeout_ms; /* for an answer; 0: none */
};

static inline struct task task_of(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: %s PORT CONNECTIONS MESSAGES READ_TIMEOUT_MS\n", argv[0]);
        exit(2);
    }
    alarm(GIVE_UP_AFTER);
    return (struct task){
        .port = (unsigned short)strtol(argv[1], NULL, 10),
        .connections = strtol(argv[2], NULL, 10),
        .messages = strtol(argv[3], NULL, 10),
        .timeout_ms = strtol(argv[4], NULL, 10),
    };
}
#endif
