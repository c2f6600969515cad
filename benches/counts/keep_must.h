/* Ends a program with the error of a failed call. */
#ifndef KEEP_MUST_H
#define KEEP_MUST_H
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>

/* A macro, so that the error is read after the call. The order of a function's arguments is unspecified. */
#define must(call, error)          \
    do {                           \
        if ((call) != KEEPSOCK_OK) \
            fail(error);           \
    } while (0)

static inline void fail(const keepsock_error *error)
{
    fprintf(stderr, "%s\n", keepsock_error_message(error));
    exit(1);
}
#endif
