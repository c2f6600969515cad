/* The arguments on the command line of the clients. */
#ifndef CLIENT_H
#define CLIENT_H
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A run that hangs must end. */
enum { GIVE_UP_AFTER = 60 };
enum { CONNECT_WITHIN_MS = 5000, SIZE = 64 };

struct task {
    const char *host;
    unsigned short port;
    long connections;
    long messages; /* per connection, each sent after the reply to the previous one */
    long timeout_ms; /* for a reply; 0: none */
};

static inline struct task task_of(int argc, char **argv)
{
    if (argc != 5 && argc != 6) {
        fprintf(stderr, "usage: %s PORT CONNECTIONS MESSAGES READ_TIMEOUT_MS [HOST]\n", argv[0]);
        exit(2);
    }
    alarm(GIVE_UP_AFTER);
    return (struct task){
        .host = argc == 6 ? argv[5] : "127.0.0.1",
        .port = (unsigned short)strtol(argv[1], NULL, 10),
        .connections = strtol(argv[2], NULL, 10),
        .messages = strtol(argv[3], NULL, 10),
        .timeout_ms = strtol(argv[4], NULL, 10),
    };
}
#endif
