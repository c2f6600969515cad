/*
 * A wrong program: a signed overflow. Built with UndefinedBehaviorSanitizer
 * only, whose report shows that the sanitizer is active.
 */
#include <limits.h>
#include <stdio.h>

int main(int argc, char **argv) {
    (void)argv;
    printf("%d\n", INT_MAX + argc);
    return 0;
}
