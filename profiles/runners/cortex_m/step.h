/* Included before model.c: tells the board when a step begins. */
void board_step(int number);
#define MODEL_STEP(number) board_step(number)
