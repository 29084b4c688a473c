-- The sample's primary keys, unique indexes, indexes and foreign keys, made once the rows are in.

ALTER TABLE "Account" ADD CONSTRAINT "Account_pkey" PRIMARY KEY ("id");
ALTER TABLE "BackgroundJobLog" ADD CONSTRAINT "BackgroundJobLog_pkey" PRIMARY KEY ("id");
ALTER TABLE "Curriculum" ADD CONSTRAINT "Curriculum_pkey" PRIMARY KEY ("id");
ALTER TABLE "CurriculumItem" ADD CONSTRAINT "CurriculumItem_pkey" PRIMARY KEY ("id");
ALTER TABLE "CurriculumSection" ADD CONSTRAINT "CurriculumSection_pkey" PRIMARY KEY ("id");
ALTER TABLE "EmailPreference" ADD CONSTRAINT "EmailPreference_pkey" PRIMARY KEY ("id");
ALTER TABLE "EmailTemplate" ADD CONSTRAINT "EmailTemplate_pkey" PRIMARY KEY ("id");
ALTER TABLE "Invoice" ADD CONSTRAINT "Invoice_pkey" PRIMARY KEY ("id");
ALTER TABLE "InvoiceItem" ADD CONSTRAINT "InvoiceItem_pkey" PRIMARY KEY ("id");
ALTER TABLE "Lesson" ADD CONSTRAINT "Lesson_pkey" PRIMARY KEY ("id");
ALTER TABLE "LessonAttachment" ADD CONSTRAINT "LessonAttachment_pkey" PRIMARY KEY ("id");
ALTER TABLE "LessonLink" ADD CONSTRAINT "LessonLink_pkey" PRIMARY KEY ("id");
ALTER TABLE "LibraryItem" ADD CONSTRAINT "LibraryItem_pkey" PRIMARY KEY ("id");
ALTER TABLE "MonthlyBilling" ADD CONSTRAINT "MonthlyBilling_pkey" PRIMARY KEY ("id");
ALTER TABLE "PasswordResetToken" ADD CONSTRAINT "PasswordResetToken_pkey" PRIMARY KEY ("id");
ALTER TABLE "Recommendation" ADD CONSTRAINT "Recommendation_pkey" PRIMARY KEY ("id");
ALTER TABLE "RecurringSlot" ADD CONSTRAINT "RecurringSlot_pkey" PRIMARY KEY ("id");
ALTER TABLE "Session" ADD CONSTRAINT "Session_pkey" PRIMARY KEY ("id");
ALTER TABLE "SlotSubscription" ADD CONSTRAINT "SlotSubscription_pkey" PRIMARY KEY ("id");
ALTER TABLE "StudentChecklist" ADD CONSTRAINT "StudentChecklist_pkey" PRIMARY KEY ("id");
ALTER TABLE "StudentChecklistItem" ADD CONSTRAINT "StudentChecklistItem_pkey" PRIMARY KEY ("id");
ALTER TABLE "StudentCurriculumProgress" ADD CONSTRAINT "StudentCurriculumProgress_pkey" PRIMARY KEY ("id");
ALTER TABLE "StudentInvitation" ADD CONSTRAINT "StudentInvitation_pkey" PRIMARY KEY ("id");
ALTER TABLE "StudentItemProgress" ADD CONSTRAINT "StudentItemProgress_pkey" PRIMARY KEY ("id");
ALTER TABLE "StudentProfile" ADD CONSTRAINT "StudentProfile_pkey" PRIMARY KEY ("id");
ALTER TABLE "SystemSettings" ADD CONSTRAINT "SystemSettings_pkey" PRIMARY KEY ("id");
ALTER TABLE "TeacherAvailability" ADD CONSTRAINT "TeacherAvailability_pkey" PRIMARY KEY ("id");
ALTER TABLE "TeacherLessonSettings" ADD CONSTRAINT "TeacherLessonSettings_pkey" PRIMARY KEY ("id");
ALTER TABLE "TeacherProfile" ADD CONSTRAINT "TeacherProfile_pkey" PRIMARY KEY ("id");
ALTER TABLE "User" ADD CONSTRAINT "User_pkey" PRIMARY KEY ("id");

CREATE UNIQUE INDEX "Account_provider_providerAccountId_key" ON "Account" ("provider", "providerAccountId");
CREATE INDEX "BackgroundJobLog_jobName_executedAt_idx" ON "BackgroundJobLog" ("jobName", "executedAt");
CREATE INDEX "Curriculum_isPublished_idx" ON "Curriculum" ("isPublished");
CREATE INDEX "Curriculum_teacherId_idx" ON "Curriculum" ("teacherId");
CREATE INDEX "CurriculumItem_sectionId_idx" ON "CurriculumItem" ("sectionId");
CREATE INDEX "CurriculumItem_sortOrder_idx" ON "CurriculumItem" ("sortOrder");
CREATE INDEX "CurriculumSection_curriculumId_idx" ON "CurriculumSection" ("curriculumId");
CREATE INDEX "CurriculumSection_sortOrder_idx" ON "CurriculumSection" ("sortOrder");
CREATE UNIQUE INDEX "EmailPreference_userId_type_key" ON "EmailPreference" ("userId", "type");
CREATE INDEX "EmailPreference_userId_idx" ON "EmailPreference" ("userId");
CREATE UNIQUE INDEX "EmailTemplate_type_key" ON "EmailTemplate" ("type");
CREATE INDEX "EmailTemplate_isActive_idx" ON "EmailTemplate" ("isActive");
CREATE INDEX "EmailTemplate_type_idx" ON "EmailTemplate" ("type");
CREATE INDEX "Invoice_dueDate_idx" ON "Invoice" ("dueDate");
CREATE INDEX "Invoice_status_idx" ON "Invoice" ("status");
CREATE INDEX "Invoice_studentId_month_idx" ON "Invoice" ("studentId", "month");
CREATE INDEX "Invoice_teacherId_month_idx" ON "Invoice" ("teacherId", "month");
CREATE INDEX "InvoiceItem_invoiceId_idx" ON "InvoiceItem" ("invoiceId");
CREATE INDEX "InvoiceItem_lessonId_idx" ON "InvoiceItem" ("lessonId");
CREATE INDEX "Lesson_date_idx" ON "Lesson" ("date");
CREATE INDEX "Lesson_recurringId_idx" ON "Lesson" ("recurringId");
CREATE INDEX "Lesson_recurringSlotId_idx" ON "Lesson" ("recurringSlotId");
CREATE INDEX "Lesson_status_idx" ON "Lesson" ("status");
CREATE INDEX "Lesson_studentId_date_idx" ON "Lesson" ("studentId", "date");
CREATE INDEX "Lesson_teacherId_date_idx" ON "Lesson" ("teacherId", "date");
CREATE INDEX "LessonAttachment_lessonId_idx" ON "LessonAttachment" ("lessonId");
CREATE INDEX "LessonLink_lessonId_idx" ON "LessonLink" ("lessonId");
CREATE INDEX "LibraryItem_category_idx" ON "LibraryItem" ("category");
CREATE INDEX "LibraryItem_instrument_idx" ON "LibraryItem" ("instrument");
CREATE INDEX "LibraryItem_isPublic_idx" ON "LibraryItem" ("isPublic");
CREATE INDEX "LibraryItem_teacherId_idx" ON "LibraryItem" ("teacherId");
CREATE UNIQUE INDEX "MonthlyBilling_subscriptionId_month_key" ON "MonthlyBilling" ("subscriptionId", "month");
CREATE INDEX "MonthlyBilling_month_idx" ON "MonthlyBilling" ("month");
CREATE INDEX "MonthlyBilling_status_idx" ON "MonthlyBilling" ("status");
CREATE INDEX "MonthlyBilling_studentId_month_idx" ON "MonthlyBilling" ("studentId", "month");
CREATE INDEX "MonthlyBilling_teacherId_month_idx" ON "MonthlyBilling" ("teacherId", "month");
CREATE UNIQUE INDEX "PasswordResetToken_token_key" ON "PasswordResetToken" ("token");
CREATE INDEX "PasswordResetToken_userId_idx" ON "PasswordResetToken" ("userId");
CREATE INDEX "Recommendation_category_idx" ON "Recommendation" ("category");
CREATE INDEX "Recommendation_teacherId_idx" ON "Recommendation" ("teacherId");
CREATE INDEX "RecurringSlot_dayOfWeek_idx" ON "RecurringSlot" ("dayOfWeek");
CREATE INDEX "RecurringSlot_studentId_status_idx" ON "RecurringSlot" ("studentId", "status");
CREATE INDEX "RecurringSlot_teacherId_status_idx" ON "RecurringSlot" ("teacherId", "status");
CREATE UNIQUE INDEX "Session_sessionToken_key" ON "Session" ("sessionToken");
CREATE UNIQUE INDEX "SlotSubscription_slotId_studentId_startMonth_key"
    ON "SlotSubscription" ("slotId", "studentId", "startMonth");
CREATE INDEX "SlotSubscription_nextBillDate_idx" ON "SlotSubscription" ("nextBillDate");
CREATE INDEX "SlotSubscription_status_idx" ON "SlotSubscription" ("status");
CREATE INDEX "SlotSubscription_studentId_idx" ON "SlotSubscription" ("studentId");
CREATE INDEX "StudentChecklist_createdBy_idx" ON "StudentChecklist" ("createdBy");
CREATE INDEX "StudentChecklist_isActive_idx" ON "StudentChecklist" ("isActive");
CREATE INDEX "StudentChecklist_studentId_idx" ON "StudentChecklist" ("studentId");
CREATE INDEX "StudentChecklistItem_checklistId_idx" ON "StudentChecklistItem" ("checklistId");
CREATE INDEX "StudentChecklistItem_checklistId_sortOrder_idx" ON "StudentChecklistItem" ("checklistId", "sortOrder");
CREATE INDEX "StudentChecklistItem_isCompleted_idx" ON "StudentChecklistItem" ("isCompleted");
CREATE UNIQUE INDEX "StudentCurriculumProgress_studentId_curriculumId_key"
    ON "StudentCurriculumProgress" ("studentId", "curriculumId");
CREATE INDEX "StudentCurriculumProgress_curriculumId_idx" ON "StudentCurriculumProgress" ("curriculumId");
CREATE INDEX "StudentCurriculumProgress_studentId_idx" ON "StudentCurriculumProgress" ("studentId");
CREATE UNIQUE INDEX "StudentInvitation_studentId_key" ON "StudentInvitation" ("studentId");
CREATE UNIQUE INDEX "StudentInvitation_token_key" ON "StudentInvitation" ("token");
CREATE INDEX "StudentInvitation_teacherId_idx" ON "StudentInvitation" ("teacherId");
CREATE INDEX "StudentInvitation_token_idx" ON "StudentInvitation" ("token");
CREATE UNIQUE INDEX "StudentItemProgress_curriculumProgressId_itemId_key"
    ON "StudentItemProgress" ("curriculumProgressId", "itemId");
CREATE INDEX "StudentItemProgress_curriculumProgressId_idx" ON "StudentItemProgress" ("curriculumProgressId");
CREATE INDEX "StudentItemProgress_itemId_idx" ON "StudentItemProgress" ("itemId");
CREATE INDEX "StudentItemProgress_status_idx" ON "StudentItemProgress" ("status");
CREATE UNIQUE INDEX "StudentProfile_userId_key" ON "StudentProfile" ("userId");
CREATE INDEX "StudentProfile_isActive_idx" ON "StudentProfile" ("isActive");
CREATE INDEX "StudentProfile_teacherId_idx" ON "StudentProfile" ("teacherId");
CREATE INDEX "StudentProfile_userId_idx" ON "StudentProfile" ("userId");
CREATE UNIQUE INDEX "TeacherAvailability_teacherId_dayOfWeek_startTime_endTime_key"
    ON "TeacherAvailability" ("teacherId", "dayOfWeek", "startTime", "endTime");
CREATE INDEX "TeacherAvailability_dayOfWeek_idx" ON "TeacherAvailability" ("dayOfWeek");
CREATE INDEX "TeacherAvailability_teacherId_idx" ON "TeacherAvailability" ("teacherId");
CREATE UNIQUE INDEX "TeacherLessonSettings_teacherId_key" ON "TeacherLessonSettings" ("teacherId");
CREATE INDEX "TeacherLessonSettings_teacherId_idx" ON "TeacherLessonSettings" ("teacherId");
CREATE UNIQUE INDEX "TeacherProfile_userId_key" ON "TeacherProfile" ("userId");
CREATE INDEX "TeacherProfile_isActive_idx" ON "TeacherProfile" ("isActive");
CREATE INDEX "TeacherProfile_userId_idx" ON "TeacherProfile" ("userId");
CREATE UNIQUE INDEX "User_email_key" ON "User" ("email");
CREATE INDEX "User_email_idx" ON "User" ("email");
CREATE INDEX "User_role_idx" ON "User" ("role");
CREATE UNIQUE INDEX "VerificationToken_identifier_token_key" ON "VerificationToken" ("identifier", "token");
CREATE UNIQUE INDEX "VerificationToken_token_key" ON "VerificationToken" ("token");

ALTER TABLE "Account"
    ADD CONSTRAINT "Account_userId_fkey" FOREIGN KEY ("userId")
    REFERENCES "User" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "Curriculum"
    ADD CONSTRAINT "Curriculum_teacherId_fkey" FOREIGN KEY ("teacherId")
    REFERENCES "TeacherProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "CurriculumItem"
    ADD CONSTRAINT "CurriculumItem_sectionId_fkey" FOREIGN KEY ("sectionId")
    REFERENCES "CurriculumSection" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "CurriculumSection"
    ADD CONSTRAINT "CurriculumSection_curriculumId_fkey" FOREIGN KEY ("curriculumId")
    REFERENCES "Curriculum" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "EmailPreference"
    ADD CONSTRAINT "EmailPreference_userId_fkey" FOREIGN KEY ("userId")
    REFERENCES "User" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "Invoice"
    ADD CONSTRAINT "Invoice_studentId_fkey" FOREIGN KEY ("studentId")
    REFERENCES "StudentProfile" ("id") ON DELETE SET NULL ON UPDATE CASCADE;
ALTER TABLE "Invoice"
    ADD CONSTRAINT "Invoice_teacherId_fkey" FOREIGN KEY ("teacherId")
    REFERENCES "TeacherProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "InvoiceItem"
    ADD CONSTRAINT "InvoiceItem_invoiceId_fkey" FOREIGN KEY ("invoiceId")
    REFERENCES "Invoice" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "InvoiceItem"
    ADD CONSTRAINT "InvoiceItem_lessonId_fkey" FOREIGN KEY ("lessonId")
    REFERENCES "Lesson" ("id") ON DELETE SET NULL ON UPDATE CASCADE;
ALTER TABLE "Lesson"
    ADD CONSTRAINT "Lesson_recurringSlotId_fkey" FOREIGN KEY ("recurringSlotId")
    REFERENCES "RecurringSlot" ("id") ON DELETE SET NULL ON UPDATE CASCADE;
ALTER TABLE "Lesson"
    ADD CONSTRAINT "Lesson_studentId_fkey" FOREIGN KEY ("studentId")
    REFERENCES "StudentProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "Lesson"
    ADD CONSTRAINT "Lesson_teacherId_fkey" FOREIGN KEY ("teacherId")
    REFERENCES "TeacherProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "LessonAttachment"
    ADD CONSTRAINT "LessonAttachment_lessonId_fkey" FOREIGN KEY ("lessonId")
    REFERENCES "Lesson" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "LessonLink"
    ADD CONSTRAINT "LessonLink_lessonId_fkey" FOREIGN KEY ("lessonId")
    REFERENCES "Lesson" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "LibraryItem"
    ADD CONSTRAINT "LibraryItem_teacherId_fkey" FOREIGN KEY ("teacherId")
    REFERENCES "TeacherProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "MonthlyBilling"
    ADD CONSTRAINT "MonthlyBilling_studentId_fkey" FOREIGN KEY ("studentId")
    REFERENCES "StudentProfile" ("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "MonthlyBilling"
    ADD CONSTRAINT "MonthlyBilling_subscriptionId_fkey" FOREIGN KEY ("subscriptionId")
    REFERENCES "SlotSubscription" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "MonthlyBilling"
    ADD CONSTRAINT "MonthlyBilling_teacherId_fkey" FOREIGN KEY ("teacherId")
    REFERENCES "TeacherProfile" ("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "PasswordResetToken"
    ADD CONSTRAINT "PasswordResetToken_userId_fkey" FOREIGN KEY ("userId")
    REFERENCES "User" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "Recommendation"
    ADD CONSTRAINT "Recommendation_teacherId_fkey" FOREIGN KEY ("teacherId")
    REFERENCES "TeacherProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "RecurringSlot"
    ADD CONSTRAINT "RecurringSlot_studentId_fkey" FOREIGN KEY ("studentId")
    REFERENCES "StudentProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "RecurringSlot"
    ADD CONSTRAINT "RecurringSlot_teacherId_fkey" FOREIGN KEY ("teacherId")
    REFERENCES "TeacherProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "Session"
    ADD CONSTRAINT "Session_userId_fkey" FOREIGN KEY ("userId")
    REFERENCES "User" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "SlotSubscription"
    ADD CONSTRAINT "SlotSubscription_slotId_fkey" FOREIGN KEY ("slotId")
    REFERENCES "RecurringSlot" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "SlotSubscription"
    ADD CONSTRAINT "SlotSubscription_studentId_fkey" FOREIGN KEY ("studentId")
    REFERENCES "StudentProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "StudentChecklist"
    ADD CONSTRAINT "StudentChecklist_createdBy_fkey" FOREIGN KEY ("createdBy")
    REFERENCES "User" ("id") ON DELETE SET NULL ON UPDATE CASCADE;
ALTER TABLE "StudentChecklist"
    ADD CONSTRAINT "StudentChecklist_studentId_fkey" FOREIGN KEY ("studentId")
    REFERENCES "StudentProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "StudentChecklistItem"
    ADD CONSTRAINT "StudentChecklistItem_checklistId_fkey" FOREIGN KEY ("checklistId")
    REFERENCES "StudentChecklist" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "StudentCurriculumProgress"
    ADD CONSTRAINT "StudentCurriculumProgress_curriculumId_fkey" FOREIGN KEY ("curriculumId")
    REFERENCES "Curriculum" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "StudentCurriculumProgress"
    ADD CONSTRAINT "StudentCurriculumProgress_studentId_fkey" FOREIGN KEY ("studentId")
    REFERENCES "StudentProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "StudentInvitation"
    ADD CONSTRAINT "StudentInvitation_studentId_fkey" FOREIGN KEY ("studentId")
    REFERENCES "StudentProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "StudentInvitation"
    ADD CONSTRAINT "StudentInvitation_teacherId_fkey" FOREIGN KEY ("teacherId")
    REFERENCES "TeacherProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "StudentItemProgress"
    ADD CONSTRAINT "StudentItemProgress_curriculumProgressId_fkey" FOREIGN KEY ("curriculumProgressId")
    REFERENCES "StudentCurriculumProgress" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "StudentItemProgress"
    ADD CONSTRAINT "StudentItemProgress_itemId_fkey" FOREIGN KEY ("itemId")
    REFERENCES "CurriculumItem" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "StudentProfile"
    ADD CONSTRAINT "StudentProfile_teacherId_fkey" FOREIGN KEY ("teacherId")
    REFERENCES "TeacherProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "StudentProfile"
    ADD CONSTRAINT "StudentProfile_userId_fkey" FOREIGN KEY ("userId")
    REFERENCES "User" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "TeacherAvailability"
    ADD CONSTRAINT "TeacherAvailability_teacherId_fkey" FOREIGN KEY ("teacherId")
    REFERENCES "TeacherProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "TeacherLessonSettings"
    ADD CONSTRAINT "TeacherLessonSettings_teacherId_fkey" FOREIGN KEY ("teacherId")
    REFERENCES "TeacherProfile" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "TeacherProfile"
    ADD CONSTRAINT "TeacherProfile_userId_fkey" FOREIGN KEY ("userId")
    REFERENCES "User" ("id") ON DELETE CASCADE ON UPDATE CASCADE;
