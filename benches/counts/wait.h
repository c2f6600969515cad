/*
 * The common part of the programs that wait for a datagram. A thread in plain C answers each question, with
 * one recv and one send. The other thread sends questions, and waits for each answer.
 *
 * PROGRAM timeout|token N  - sends N questions, and prints the nanoseconds of processor time that its
 *                            own thread used for a question and its answer
 */
#ifndef WAIT_H
#define WAIT_H
#include <netinet/in.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, TIMEOUT_S = 60, GIVE_UP_AFTER_SECONDS = 120 };

/* Each program defines these. */
static void open_socket(const struct sockaddr_in *to, int token);
static void ask(const char *question, size_t len);
static size_t answer(char *buf, size_t cap);

static void check(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static void *echo(void *socket)
{
    char buf[SIZE];
    struct sockaddr_in from;

    for (;;) {
        socklen_t len = sizeof from;
        ssize_t n = recvfrom(*(int *)socket, buf, sizeof buf, 0, (struct sockaddr *)&from, &len);

        check(n >= 0, "recvfrom");
        check(sendto(*(int *)socket, buf, (size_t)n, MSG_NOSIGNAL, (struct sockaddr *)&from, len) == n, "sendto");
    }
    return NULL;
}

static int64_t used(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    pthread_t thread;
    char question[SIZE], got[SIZE + 1];
    int answering;

    if (argc != 3 || (strcmp(argv[1], "timeout") && strcmp(argv[1], "token"))) {
        fprintf(stderr, "usage: %s timeout|token N\n", argv[0]);
        return 2;
    }
    alarm(GIVE_UP_AFTER_SECONDS);
    answering = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    check(bind(answering, (struct sockaddr *)&address, len) == 0, "bind");
    check(getsockname(answering, (struct sockaddr *)&address, &len) == 0, "getsockname");
    open_socket(&address, strcmp(argv[1], "token") == 0);
    check(pthread_create(&thread, NULL, echo, &answering) == 0, "pthread_create");
    long n = strtol(argv[2], NULL, 10);
    int64_t before = used();

    for (long i = 0; i < n; i++) {
        memset(question, (char)i, sizeof question);
        ask(question, sizeof question);
        if (answer(got, sizeof got) != SIZE || memcmp(question, got, SIZE) != 0) {
            fprintf(stderr, "the answer differs from the question\n");
            return 1;
        }
    }
    if (n > 0)
        printf("%.0f\n", (double)(used() - before) / (double)n);
    return 0;
}
#endif
